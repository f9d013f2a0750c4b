package bpf

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// socketTracepoints are those that not every kernel has, by program.
var socketTracepoints = map[string]string{
	DnstraceProgSkDataReady: "sk_data_ready", DnstraceProgSockRecvLength: "sock_recv_length", DnstraceProgTcpProbe: "tcp_probe",
	DnstraceProgNeighEventSendDone: "neigh_event_send_done",
}

// No program calls a function of its own: see the head of dnstrace.c for the kernels that
// would not survive it.
func TestNoFunctionCalls(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"dnstrace": LoadDnstrace, "listeners": LoadListeners} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if len(spec.Programs) == 0 {
			t.Errorf("%s has no programs", name)
		}
		for program, p := range spec.Programs {
			for i := range p.Instructions {
				if ins := &p.Instructions[i]; ins.IsFunctionReference() {
					t.Errorf("%s calls %s", program, ins.Reference())
				}
			}
		}
	}
}

// Both drop programs, those of sockets as far as this kernel has their tracepoints, and
// every way to payload in pages pass this kernel's verifier.
func TestLoad(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	for _, drop := range []string{DnstraceProgKfreeSkb, DnstraceProgKfreeSkbOld} {
		for _, paged := range []string{DnstraceVarReadPaged, DnstraceVarOutputPaged, ""} {
			t.Run(fmt.Sprintf("without %s, paged %q", drop, paged), func(t *testing.T) {
				spec, err := LoadDnstrace()
				if err != nil {
					t.Fatal(err)
				}
				delete(spec.Programs, drop)
				for program, tracepoint := range socketTracepoints {
					var def *btf.Typedef
					if kernel.TypeByName("btf_trace_"+tracepoint, &def) != nil {
						delete(spec.Programs, program)
					}
				}
				if err := spec.Variables[DnstraceVarPorts].Set([8]uint16{53}); err != nil {
					t.Fatal(err)
				}
				for name, set := range map[string]bool{
					DnstraceVarReadPaged: DnstraceVarReadPaged == paged, DnstraceVarOutputPaged: DnstraceVarOutputPaged == paged,
					DnstraceVarReadsObserved: true,
				} {
					if err := spec.Variables[name].Set(set); err != nil {
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
