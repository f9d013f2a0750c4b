package bpf

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
)

// Both drop programs and both ways to read payload pass this kernel's verifier.
func TestLoad(t *testing.T) {
	for _, drop := range []string{DnstraceProgKfreeSkb, DnstraceProgKfreeSkbOld} {
		for _, paged := range []bool{true, false} {
			t.Run(fmt.Sprintf("without %s, paged %t", drop, paged), func(t *testing.T) {
				spec, err := LoadDnstrace()
				if err != nil {
					t.Fatal(err)
				}
				delete(spec.Programs, drop)
				if err := spec.Variables[DnstraceVarPorts].Set([8]uint16{53}); err != nil {
					t.Fatal(err)
				}
				if err := spec.Variables[DnstraceVarReadPaged].Set(paged); err != nil {
					t.Fatal(err)
				}
				coll, err := ebpf.NewCollection(spec)
				var refused *ebpf.VerifierError
				if errors.As(err, &refused) {
					t.Fatalf("%+v", refused)
				}
				if err != nil {
					t.Fatal(err)
				}
				coll.Close()
			})
		}
	}
}
