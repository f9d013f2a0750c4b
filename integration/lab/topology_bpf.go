package lab

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab/datapath"
)

// bpfServices are the Service in IPv4 and IPv6, as the programs' variables hold it.
func (l *Lab) bpfServices() map[string]any {
	endpoint := l.endpoint()
	return map[string]any{
		"service4": datapath.NewService(ServiceV4.Addr(), endpoint[0]),
		"service6": datapath.NewService(ServiceV6.Addr(), endpoint[1]),
	}
}

// loadBPF loads programs with their variables set, until Close, and makes counters of
// those that they count in.
func (l *Lab) loadBPF(load func() (*ebpf.CollectionSpec, error), variables map[string]any) (*ebpf.Collection, error) {
	coll, err := datapath.Load(load, variables)
	if err != nil {
		return nil, err
	}
	l.atClose(func() error {
		coll.Close()
		return nil
	})
	for name, v := range coll.Variables {
		if !v.ReadOnly() {
			l.counts(name, func() (n uint64, err error) { return n, v.Get(&n) })
		}
	}
	return coll, nil
}

// attachTC attaches a program to a device, where packets come in or go out. It goes
// with the device.
func (h *Host) attachTC(device string, parent uint32, prog *ebpf.Program, name string) error {
	dev, err := h.ns.links.LinkByName(device)
	if err != nil {
		return err
	}
	index := dev.Attrs().Index
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	if err := h.ns.links.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("qdisc clsact at %s of %s: %w", device, h.Name, err)
	}
	err = h.ns.links.FilterAdd(&netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:           prog.FD(),
		Name:         name,
		DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("program %s at %s of %s: %w", name, device, h.Name, err)
	}
	return nil
}
