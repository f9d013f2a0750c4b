package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"structs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bpfService is struct service of the programs.
type bpfService struct {
	_            structs.HostLayout
	Address      [16]byte
	Endpoint     [16]byte
	EndpointPort [2]byte // network order
	_            [2]byte
}

// bpfServices are the Service in IPv4 and IPv6, as the programs' variables hold it.
func (l *Lab) bpfServices() map[string]any {
	vars := make(map[string]any)
	for i, endpoint := range l.endpoint() {
		service := []netip.AddrPort{ServiceV4, ServiceV6}[i]
		vars[[]string{"service4", "service6"}[i]] = bpfService{
			Address:      service.Addr().As16(),
			Endpoint:     endpoint.Addr().As16(),
			EndpointPort: [2]byte{byte(endpoint.Port() >> 8), byte(endpoint.Port())},
		}
	}
	return vars
}

// loadBPF loads programs with their variables set, until Close.
func (l *Lab) loadBPF(load func() (*ebpf.CollectionSpec, error), vars map[string]any) (*ebpf.Collection, error) {
	spec, err := load()
	if err != nil {
		return nil, err
	}
	for name, value := range vars {
		v, ok := spec.Variables[name]
		if !ok {
			return nil, fmt.Errorf("the programs have no variable %s", name)
		}
		if err := v.Set(value); err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
	}
	// Kernels before 5.11 count maps among the locked memory.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("%+v", refused)
		}
		return nil, err
	}
	l.atClose(func() error {
		coll.Close()
		return nil
	})
	for name, v := range coll.Variables {
		l.counts(name, func() (n uint64, err error) { return n, v.Get(&n) })
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
