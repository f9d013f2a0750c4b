package bpf

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// reading are the helpers that the programs may call: each reads something, or writes to a
// map of ours, or to whom user space reads from. None writes to a packet, to a socket or to
// the memory of a process, sends, drops, redirects, delays or signals (bpf-helpers(7)).
var reading = []asm.BuiltinFunc{
	asm.FnKtimeGetNs, asm.FnGetSmpProcessorId, asm.FnGetCurrentTaskBtf, asm.FnTaskPtRegs, asm.FnSockFromFile, asm.FnSkbCgroupId, asm.FnGetStack,
	asm.FnProbeReadKernel, asm.FnProbeReadUser, asm.FnSkbLoadBytes, asm.FnDynptrRead,
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnRingbufOutput, asm.FnSkbOutput, asm.FnSeqWrite,
}

// readingKfuncs are the kernel's functions that they may call.
var readingKfuncs = []string{"bpf_rdonly_cast", "bpf_dynptr_from_skb"}

// The programs only read: each is at a BTF tracepoint or an iterator, of which the kernel
// takes no verdict, or at what arrives at a cgroup, where it lets everything pass; and what
// they call changes nothing but their own maps.
func TestProgramsOnlyRead(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"dnstrace": LoadDnstrace, "listeners": LoadListeners} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if len(spec.Programs) == 0 {
			t.Errorf("%s has no programs", name)
		}
		for program, p := range spec.Programs {
			switch {
			case p.Type == ebpf.Tracing && (p.AttachType == ebpf.AttachTraceRawTp || p.AttachType == ebpf.AttachTraceIter):
			case p.Type == ebpf.CGroupSKB && p.AttachType == ebpf.AttachCGroupInetIngress:
				letsPass(t, p)
			default:
				t.Errorf("%s is a program of type %s at %s", program, p.Type, p.AttachType)
			}
			for i := range p.Instructions {
				if err := onlyReads(&p.Instructions[i]); err != nil {
					t.Errorf("%s: %v", program, err)
				}
			}
		}
	}
}

// onlyReads tells what is wrong with an instruction that calls something.
func onlyReads(ins *asm.Instruction) error {
	switch {
	case ins.IsBuiltinCall() && !slices.Contains(reading, asm.BuiltinFunc(ins.Constant)):
		return errors.New("it calls " + asm.BuiltinFunc(ins.Constant).String())
	case ins.IsKfuncCall() && !slices.Contains(readingKfuncs, kfunc(ins)):
		return errors.New("it calls " + kfunc(ins))
	}
	return nil
}

func kfunc(ins *asm.Instruction) string {
	if meta := btf.FuncMetadata(ins); meta != nil {
		return meta.Name
	}
	return ins.Reference()
}

// letsPass wants a program to end with 1, from wherever it comes to an end.
func letsPass(t *testing.T, p *ebpf.ProgramSpec) {
	t.Helper()
	exits := 0
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		if ins.OpCode.JumpOp() != asm.Exit || !ins.OpCode.Class().IsJump() {
			continue
		}
		exits++
		before := &p.Instructions[max(0, i-1)]
		one := before.OpCode == asm.Mov.Op(asm.ImmSource) && before.Dst == asm.R0 && before.Constant == 1
		one = one || before.OpCode == asm.Mov.Op32(asm.ImmSource) && before.Dst == asm.R0 && before.Constant == 1
		// Whoever jumps to the exit itself comes with something else.
		if !one || ins.Symbol() != "" {
			t.Errorf("%s ends with %v after %v, label %q", p.Name, ins, before, ins.Symbol())
		}
	}
	if exits == 0 {
		t.Errorf("%s has no end: %s", p.Name, strings.TrimSpace(p.Instructions.String()))
	}
}
