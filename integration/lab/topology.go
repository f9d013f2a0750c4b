package lab

import (
	"fmt"
	"net/netip"
)

// Topology is a way in which a node carries DNS messages between a client, CoreDNS
// and the upstreams. The zero value is the bridge of doc.go. In every topology
// lookups of names whose first label is DroppedLabel are dropped at Drop, if
// [Lab.DropQueries] is called. Pods that are added later are on the way of none of its
// eBPF programs and proxies.
type Topology struct {
	// Name is made of lower-case letters, digits and hyphens.
	Name string
	// Client is the host that lookups come from; default client-a.
	Client string
	// Servers are the servers from the client to the upstreams, in the order in which
	// a query meets them; default one on CoreDNS, port 53.
	Servers []DNSServer
	// Services are what the client asks, IPv4 and IPv6; default the Service addresses.
	Services [2]netip.AddrPort
	// OnWire are the same as they stand in the packets that leave the client: others
	// than Services where the translation is done at the socket.
	OnWire [2]netip.AddrPort
	// Proxied: a proxy that keeps no records takes what the client sends, and asks the
	// first of the servers.
	Proxied bool
	// Drop is where DropQueries drops.
	Drop DropPoint

	// What follows builds it; nil functions are those of the bridge.

	node      func(l *Lab) error                            // the node's part of the pods' network
	attach    func(l *Lab, pod *Host, outside string) error // a pod, whose eth0 is `outside` on the node
	service   func(l *Lab) error                            // the translation of the Service
	finish    func(l *Lab) error                            // when all hosts are there
	drop      func(l *Lab) (undo func(), err error)         // nil: a rule in chain
	chain     Place                                         // default NodeForward
	chainPort uint16                                        // the port that queries go to there; default 53
}

// DNSServer is a CoreDNS of a topology.
type DNSServer struct {
	Host string
	Port uint16 // that it listens on
	// Bind are the addresses that it listens on; none means all.
	Bind []netip.Addr
	// Forward are the server behind it, IPv4 and IPv6; zero for the upstreams.
	Forward [2]netip.Addr
}

// DropPoint is what is true of a packet that a topology drops.
type DropPoint struct {
	Host   string
	Device string // empty: of no account, as where a chain drops
	BPF    bool   // an eBPF program drops it, and not netfilter
}

// DroppedLabel is the first label of names whose queries DropQueries drops.
const DroppedLabel = "drop"

// Topologies are all that a lab can be built with, the bridge first, with what they leave
// to default filled in.
func Topologies() []Topology {
	all := []Topology{
		bridged(),
		flooding(),
		hostClient(),
		hostServer(),
		hostBoth(),
		routed(),
		vpc(),
		twoUplinks(),
		targetPort(),
		socketLB(bridged()),
		socketLB(targetPort()),
		packetLB(),
		socketAndPacket(),
		nodeLocal(),
		transparentProxy(),
	}
	for i := range all {
		all[i] = all[i].withDefaults()
	}
	return all
}

// withDefaults fills in what a topology leaves open.
func (t Topology) withDefaults() Topology {
	if t.Client == "" {
		t.Client = "client-a"
	}
	if t.Servers == nil {
		t.Servers = []DNSServer{{Host: CoreDNS, Port: 53}}
	}
	if !t.Services[0].IsValid() {
		t.Services = [2]netip.AddrPort{ServiceV4, ServiceV6}
	}
	if !t.OnWire[0].IsValid() {
		t.OnWire = t.Services
	}
	if t.chain == (Place{}) {
		t.chain = NodeForward
	}
	if t.Drop == (DropPoint{}) {
		t.Drop = DropPoint{Host: t.chain.Host}
	}
	if t.node == nil {
		t.node = (*Lab).buildBridge
	}
	if t.attach == nil {
		t.attach = (*Lab).attachToBridge
	}
	if t.service == nil {
		t.service = (*Lab).buildService
	}
	if t.finish == nil {
		t.finish = func(*Lab) error { return nil }
	}
	if t.drop == nil {
		t.drop = (*Lab).dropInChain
	}
	return t
}

// Topology returns the lab's, with what it leaves to default filled in.
func (l *Lab) Topology() Topology { return l.cfg.Topology }

// Count is a counter of what the lab's topology is made of, which shows that it does the
// work and not the kernel's stack: translated, translated_back, delivered,
// delivered_from_uplink, sent_out, dropped and refused of the eBPF programs (their C says what
// they count), proxied for the messages and connections that the transparent proxy took.
func (l *Lab) Count(name string) (uint64, error) {
	l.mu.Lock()
	read, ok := l.counters[name]
	l.mu.Unlock()
	if !ok {
		return 0, fmt.Errorf("the topology %s has no counter %s", l.cfg.Topology.Name, name)
	}
	return read()
}

// counts makes a counter.
func (l *Lab) counts(name string, read func() (uint64, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters[name] = read
}

// DropQueries drops queries for names whose first label is DroppedLabel, at the
// topology's Drop, until undone.
func (l *Lab) DropQueries() (undo func(), err error) { return l.cfg.Topology.drop(l) }

// dropInChain drops by a rule of netfilter.
func (l *Lab) dropInChain() (undo func(), err error) {
	t := l.cfg.Topology
	return l.DropAt(t.chain, Match{Messages: Queries, Port: t.chainPort, Extra: []string{
		"-m", "string", "--algo", "bm", "--hex-string", "|04|" + DroppedLabel,
	}})
}

// endpoint is the CoreDNS pod, or what stands for it, as the Service's endpoint.
func (l *Lab) endpoint() [2]netip.AddrPort {
	servers := l.cfg.Topology.Servers
	last := servers[len(servers)-1]
	host := l.Host(last.Host)
	if last.Host == Node {
		return [2]netip.AddrPort{netip.AddrPortFrom(NodeUplinkV4, last.Port), netip.AddrPortFrom(nodeUplinkV6, last.Port)}
	}
	return [2]netip.AddrPort{netip.AddrPortFrom(host.V4, last.Port), netip.AddrPortFrom(host.V6, last.Port)}
}

// podEndpoint is the CoreDNS pod's address before there is a lab.
func podEndpoint(port uint16) [2]netip.AddrPort {
	v4, v6 := podAddrs(coreDNSOctet)
	return [2]netip.AddrPort{netip.AddrPortFrom(v4, port), netip.AddrPortFrom(v6, port)}
}
