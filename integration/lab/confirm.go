package lab

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// raceMark marks the packet that is to lose the race.
const raceMark = 0xd5

// RaceLostBy makes the node drop queries for a name and type from pods, directly
// before connection tracking confirms their entry, until undone: what happens to
// one of two packets that race for an entry. The packet is dropped by a hook and
// not by a rule of the firewall, like there, and its entry is unconfirmed.
func (l *Lab) RaceLostBy(name string, qtype uint16) (undo func(), err error) {
	question := hexName(name)
	question = fmt.Sprintf("%s%04x|", question[:len(question)-1], qtype)
	unmark, err := l.RuleAt(NodeManglePrerouting, Match{
		Messages: Queries, Leg: ClientLeg,
		// A query whose entry its twin has made already does not race.
		Extra: []string{"-m", "conntrack", "!", "--ctstatus", "CONFIRMED", "-m", "string", "--algo", "bm", "--hex-string", question},
	}, "-j", "MARK", "--set-mark", fmt.Sprint(raceMark))
	if err != nil {
		return nil, err
	}
	hook, err := l.dropMarkedAtConfirm()
	if err != nil {
		unmark()
		return nil, err
	}
	return l.undoOnce(func() error {
		unmark()
		return hook.Close()
	}), nil
}

// dropMarkedAtConfirm attaches a program to the last place before nf_confirm.
func (l *Lab) dropMarkedAtConfirm() (link.Link, error) {
	skb, mark, err := skbOffsets()
	if err != nil {
		return nil, err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lose_race", Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, skb, asm.DWord),
			asm.LoadMem(asm.R2, asm.R2, mark, asm.Word),
			asm.Mov.Imm(asm.R0, 1), // NF_ACCEPT
			asm.JNE.Imm(asm.R2, raceMark, "exit"),
			asm.Mov.Imm(asm.R0, 0), // NF_DROP
			asm.Return().WithSymbol("exit"),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load a netfilter program: %w", err)
	}
	var hook link.Link
	err = l.Host(Node).Do(func() (err error) {
		hook, err = link.AttachNetfilter(link.NetfilterOptions{
			Program: prog, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetPostRouting, Priority: math.MaxInt32 - 1,
		})
		return err
	})
	// The hook keeps the program.
	if err = errors.Join(err, prog.Close()); err != nil {
		return nil, fmt.Errorf("attach a netfilter program: %w", err)
	}
	return hook, nil
}

// skbOffsets returns where a netfilter program finds the packet in its context,
// and the mark in the packet, on this kernel.
func skbOffsets() (skb, mark int16, err error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, 0, fmt.Errorf("kernel BTF: %w", err)
	}
	for _, want := range []struct {
		in, member string
		at         *int16
	}{{"bpf_nf_ctx", "skb", &skb}, {"sk_buff", "mark", &mark}} {
		var s *btf.Struct
		if err := spec.TypeByName(want.in, &s); err != nil {
			return 0, 0, fmt.Errorf("kernel BTF: %w", err)
		}
		offset, ok := memberOffset(s.Members, want.member)
		if !ok {
			return 0, 0, fmt.Errorf("kernel BTF: struct %s has no %s", want.in, want.member)
		}
		*want.at = int16(offset)
	}
	return skb, mark, nil
}

// memberOffset looks a member up, in anonymous structs and unions too.
func memberOffset(members []btf.Member, name string) (bytes uint32, found bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if m.Name == "" {
			if at, ok := memberOffset(inner, name); ok {
				return m.Offset.Bytes() + at, true
			}
		}
	}
	return 0, false
}
