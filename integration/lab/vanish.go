package lab

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Values of struct __sk_buff and of tc actions (include/uapi/linux/bpf.h,
// include/uapi/linux/pkt_cls.h).
const (
	skbLenOffset      = 0
	skbProtocolOffset = 16
	ethPIPBigEndian   = 0x0008
	tcActOK           = 0
	tcActShot         = 2
	tcActStolen       = 4
)

// VanishAt makes every IPv4 packet to a pod vanish on the node, on its way out
// to the pod's device, until undone. The kernel takes the packet as consumed, so
// there is no drop event: as if it had been lost in a cable.
func (l *Lab) VanishAt(pod string) (undo func(), err error) { return l.program(pod, 0, tcActStolen) }

// VanishAbove does so with packets of more bytes, as a path does that passes no larger ones
// and tells nobody.
func (l *Lab) VanishAbove(pod string, bytes int32) (undo func(), err error) {
	return l.program(pod, bytes, tcActStolen)
}

// DropByProgramAt has an eBPF program drop every IPv4 packet to a pod on the node, on
// its way out to the pod's device, until undone: as a network policy does where eBPF
// is the data path.
func (l *Lab) DropByProgramAt(pod string) (undo func(), err error) {
	return l.program(pod, 0, tcActShot)
}

// program attaches a program to the node's device of a pod that does one thing with
// every IPv4 packet to it that has more bytes than that.
func (l *Lab) program(pod string, above, action int32) (undo func(), err error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vanish", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, skbProtocolOffset, asm.Word),
			asm.Mov.Imm(asm.R0, tcActOK),
			asm.JNE.Imm(asm.R2, ethPIPBigEndian, "exit"),
			asm.LoadMem(asm.R2, asm.R1, skbLenOffset, asm.Word),
			asm.JLE.Imm(asm.R2, above, "exit"),
			asm.Mov.Imm(asm.R0, action),
			asm.Return().WithSymbol("exit"),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load a tc program: %w", err)
	}
	node, device := l.Host(Node), vethName(pod)
	var qdisc *netlink.Clsact
	err = node.Do(func() error {
		link, err := node.ns.links.LinkByName(device)
		if err != nil {
			return err
		}
		index := link.Attrs().Index
		qdisc = &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}
		if err := node.ns.links.QdiscAdd(qdisc); err != nil {
			return err
		}
		return node.ns.links.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1,
			},
			Fd: prog.FD(), Name: "vanish", DirectAction: true,
		})
	})
	// The filter keeps the program.
	if err = errors.Join(err, prog.Close()); err != nil {
		return nil, fmt.Errorf("attach a tc program to %s: %w", device, err)
	}
	return l.undoOnce(func() error { return node.ns.links.QdiscDel(qdisc) }), nil
}
