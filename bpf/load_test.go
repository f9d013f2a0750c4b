package bpf

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
)

// Both drop programs and every way to payload in pages pass this kernel's verifier.
func TestLoad(t *testing.T) {
	for _, drop := range []string{DnstraceProgKfreeSkb, DnstraceProgKfreeSkbOld} {
		for _, paged := range []string{DnstraceVarReadPaged, DnstraceVarOutputPaged, ""} {
			t.Run(fmt.Sprintf("without %s, paged %q", drop, paged), func(t *testing.T) {
				spec, err := LoadDnstrace()
				if err != nil {
					t.Fatal(err)
				}
				delete(spec.Programs, drop)
				if err := spec.Variables[DnstraceVarPorts].Set([8]uint16{53}); err != nil {
					t.Fatal(err)
				}
				for _, way := range []string{DnstraceVarReadPaged, DnstraceVarOutputPaged} {
					if err := spec.Variables[way].Set(way == paged); err != nil {
						t.Fatal(err)
					}
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
