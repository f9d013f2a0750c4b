package lab

import (
	"fmt"
	"maps"

	"github.com/vishvananda/netlink"

	"github.com/dnstrace/dnstrace/integration/lab/datapath"
)

// packetLB is a node whose tc programs translate the Service a packet at a time and
// deliver into the pods with bpf_redirect_peer, past the devices there. What pods send
// by the uplink gets the node's address; what comes back goes by the node's stack.
func packetLB() Topology {
	t := Topology{Name: "packet-lb", node: noBridge, attach: attachRouted, service: noService}
	t.finish = func(l *Lab) error { return l.attachPacketLB(true, false) }
	return droppedByBPF(t)
}

// socketAndPacket is packetLB with the Service translated at the socket, and with what
// comes in by the uplink delivered into the pods as well.
func socketAndPacket() Topology {
	t := Topology{Name: "redirect-peer", node: noBridge, attach: attachRouted, service: noService}
	t.finish = func(l *Lab) error { return l.attachPacketLB(false, true) }
	t = socketLB(t)
	return droppedByBPF(t)
}

// droppedByBPF drops at the client's device on the node. The programs do so from the
// start, so there is nothing to undo.
func droppedByBPF(t Topology) Topology {
	t.Drop = DropPoint{Host: Node, Device: vethName("client-a"), BPF: true}
	t.drop = func(*Lab) (func(), error) { return func() {}, nil }
	return t
}

func noService(*Lab) error { return nil }

// attachPacketLB attaches the programs of packets.c to the node's devices.
func (l *Lab) attachPacketLB(services, uplinkToPod bool) error {
	node := l.Host(Node)
	eth0, err := node.ns.links.LinkByName("eth0")
	if err != nil {
		return err
	}
	vars := l.bpfServices()
	maps.Copy(vars, map[string]any{
		"node4": NodeUplinkV4.As16(), "node6": nodeUplinkV6.As16(),
		"uplink": uint32(eth0.Attrs().Index), "services": services, "uplink_to_pod": uplinkToPod,
	})
	coll, err := l.loadBPF(datapath.LoadPackets, vars)
	if err != nil {
		return err
	}
	if services {
		l.endpoints = coll.Variables["no_endpoint"]
	}
	for _, pod := range l.pods() {
		outside := vethName(pod.Name)
		dev, err := node.ns.links.LinkByName(outside)
		if err != nil {
			return err
		}
		for _, addr := range [][16]byte{pod.V4.As16(), pod.V6.As16()} {
			if err := coll.Maps["pods"].Put(addr, uint32(dev.Attrs().Index)); err != nil {
				return err
			}
		}
		if err := node.attachTC(outside, netlink.HANDLE_MIN_INGRESS, coll.Programs["from_pod"], "from_pod"); err != nil {
			return err
		}
	}
	if err := node.attachTC("eth0", netlink.HANDLE_MIN_INGRESS, coll.Programs["from_uplink"], "from_uplink"); err != nil {
		return err
	}
	return node.attachTC("eth0", netlink.HANDLE_MIN_EGRESS, coll.Programs["to_uplink"], "to_uplink")
}

// RemoveEndpoint lets the eBPF programs that translate the Service refuse what is sent to
// it, with an ICMP error that they make of the packet, until undone. Names must have 14
// characters or more: the error quotes 40 bytes behind the IP header.
func (l *Lab) RemoveEndpoint() (undo func(), err error) {
	if l.endpoints == nil {
		return nil, fmt.Errorf("the topology %s translates no packets by eBPF programs", l.cfg.Topology.Name)
	}
	if err := l.endpoints.Set(uint64(1)); err != nil {
		return nil, err
	}
	return l.undoOnce(func() error { return l.endpoints.Set(uint64(0)) }), nil
}

// pods are the hosts that are attached to the node.
func (l *Lab) pods() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pods []*Host
	for name, host := range l.hosts {
		if name != Node && name != Upstream {
			pods = append(pods, host)
		}
	}
	return pods
}
