package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

func TestLoad(t *testing.T) {
	spec, err := LoadDnstrace()
	if err != nil {
		t.Fatal(err)
	}
	delete(spec.Programs, "kfree_skb_old")
	if err := spec.Variables["ports"].Set([8]uint16{53}); err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		t.Fatalf("%+v", ve)
	}
	if err != nil {
		t.Fatal(err)
	}
	coll.Close()
}
