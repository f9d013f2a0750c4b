package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"structs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// Service is struct service of the programs: an address on port 53, and the one endpoint
// behind it. Programs have two of them, in the variables service4 and service6.
type Service struct {
	_            structs.HostLayout
	Address      [16]byte // IPv4 as ::ffff:a.b.c.d
	Endpoint     [16]byte
	EndpointPort [2]byte // network order
	_            [2]byte
}

// NewService makes a Service.
func NewService(address netip.Addr, endpoint netip.AddrPort) Service {
	return Service{
		Address:      address.As16(),
		Endpoint:     endpoint.Addr().As16(),
		EndpointPort: [2]byte{byte(endpoint.Port() >> 8), byte(endpoint.Port())},
	}
}

// Load loads the programs of [LoadSocketLB] or [LoadPackets] with their variables set. The
// caller closes the collection. What the verifier says of a program that it refuses is in
// the error.
func Load(load func() (*ebpf.CollectionSpec, error), variables map[string]any) (*ebpf.Collection, error) {
	spec, err := load()
	if err != nil {
		return nil, err
	}
	for name, value := range variables {
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
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("%w\n%s", err, strings.Join(refused.Log, "\n"))
	}
	return coll, err
}
