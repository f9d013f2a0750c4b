package trace

import "net/netip"

// NAT is what the kernel's connection tracking, or a match of sightings, says
// of the addresses that a query had after translation. An unset address was not
// translated.
type NAT struct {
	ServerIP   netip.Addr `json:"server_ip"`
	ServerPort *uint16    `json:"server_port"`
	ClientIP   netip.Addr `json:"client_ip"`
	ClientPort *uint16    `json:"client_port"`
	Source     string     `json:"source"` // conntrack, buffer, matched

	// Endpoint is what Kubernetes says of the translated server address; nil, and
	// absent in JSON, where it is not known.
	Endpoint *ServiceEndpoint `json:"endpoint"`
}

// Sources of a [NAT].
const (
	NATConntrack = "conntrack" // the kernel's connection tracking says so
	NATBuffer    = "buffer"    // the same packet buffer had both addresses within milliseconds
	NATMatched   = "matched"   // client, ID and question agree within milliseconds
)

// ServiceEndpoint is what the EndpointSlices of a Service say of an address that
// the Service's address was translated to.
type ServiceEndpoint struct {
	State string `json:"state"` // ready, not_ready, removed, unlisted
	Pod   string `json:"pod"`   // namespace/name of the pod that has, or had, the address there
	// Since is when the tracer learned that the endpoint was removed or not ready
	// any more, counted from the query: negative is before it. Nil where it is ready,
	// or never was while the tracer knew the Service.
	Since *Seconds `json:"since_seconds"`
}

// States of a [ServiceEndpoint].
const (
	EndpointReady    = "ready"
	EndpointNotReady = "not_ready"
	EndpointRemoved  = "removed"  // it was listed before
	EndpointUnlisted = "unlisted" // no slice of the Service lists it
)

// Tunnel is the packet that carried another one.
type Tunnel struct {
	Kind string         `json:"kind"` // vxlan (RFC 7348), geneve (RFC 8926), ipip (RFC 2003), gre (RFC 2784)
	Src  netip.AddrPort `json:"src"`  // without a port where the tunnel has none
	Dst  netip.AddrPort `json:"dst"`
	VNI  uint32         `json:"vni"` // number of the virtual network, key of GRE
}

func (t *Tunnel) equal(u *Tunnel) bool {
	return t == u || t != nil && u != nil && *t == *u
}

// Drop is where and why the kernel freed a packet of an exchange.
type Drop struct {
	Where       string  `json:"where"`  // kernel symbol
	Reason      string  `json:"reason"` // enum skb_drop_reason without its prefix; empty: the kernel gives none
	Description string  `json:"words"`  // what where and reason mean; empty: unknown
	Message     string  `json:"message"`
	Node        string  `json:"node"` // whose tracer saw it; empty: its name is unknown
	NetNS       uint32  `json:"netns"`
	NetNSName   string  `json:"netns_name"`
	IfName      string  `json:"ifname"` // empty where the packet had no device yet
	Offset      Seconds `json:"offset_seconds"`
	// Held is the time since the packet was first seen; 0, and absent in JSON: it was not.
	Held Seconds `json:"held_seconds"`
	// Dst is where the packet went; the zero value, and absent in JSON: to the server, as the
	// client addressed it, or that is not known.
	Dst netip.AddrPort `json:"dst"`
	// BPF names the kind of eBPF program that dropped it ("tc ingress", "XDP"); empty,
	// and absent in JSON: none did.
	BPF string `json:"bpf"`
	// Fragment says that it was a later fragment of the message, which has no ports. JSON
	// leaves out false.
	Fragment bool `json:"fragment"`

	// Entries that the namespace's connection tracking had, and might have, where it
	// had none for the packet. JSON leaves both out where they are not known.
	ConntrackCount uint32 `json:"conntrack_count"`
	ConntrackMax   uint32 `json:"conntrack_max"` // 0: neither is known
}

// Sent is when the packet was first seen, since the exchange's time.
func (d *Drop) Sent() Seconds { return d.Offset - d.Held }

// InSocket tells whether the packet was in a socket, whose end it did not outlive: it had
// come to its receiver, and has no device there any more.
func (d *Drop) InSocket() bool {
	switch d.Reason {
	case "SOCKET_CLOSE", "QUEUE_PURGE":
		return true
	}
	return d.Reason == "" && d.Where == "udp_destruct_common"
}

// Place returns the namespace in which the packet was dropped.
func (d *Drop) Place() Place { return Place{d.Node, d.NetNS} }

// Why a receiver could not take a response (`why` of a [Rejection]).
const (
	RejectedID         = "id"         // it has another DNS ID
	RejectedQuestion   = "question"   // it answers another question, or repeats it with another case of letters
	RejectedAddress    = "address"    // it comes from another address than was asked
	RejectedPort       = "port"       // it comes from another port of that address
	RejectedMalformed  = "malformed"  // it is no DNS message
	RejectedIncomplete = "incomplete" // it ends before its own records do
)

// Rejection is a response that came and that its receiver could not take for the
// answer.
type Rejection struct {
	Why    string         `json:"why"`
	Src    netip.AddrPort `json:"src"`
	RCode  string         `json:"rcode"` // empty: it has none that can be read
	Size   int            `json:"size"`  // bytes
	Offset Seconds        `json:"offset_seconds"`
}

// Reset is the TCP segment with RST that ended the connection of an exchange, or
// refused it (RFC 9293, section 3.5.2).
type Reset struct {
	Src    netip.AddrPort `json:"src"`
	Offset Seconds        `json:"offset_seconds"`
}

// Answer is an address or an alias in a response's answer section.
type Answer struct {
	Type  string `json:"type"`  // A, AAAA, CNAME
	Value string `json:"value"` // an address, or a name in presentation format
	TTL   uint32 `json:"ttl"`   // seconds
}

// ExtendedError is why a server answered as it did, in its own words (RFC 8914).
type ExtendedError struct {
	Code uint16 `json:"code"`
	Name string `json:"name"` // empty: the code is not registered
	Text string `json:"text"`
}

// ICMP is an error about a packet of an exchange (RFC 792, RFC 4443).
type ICMP struct {
	Type    uint8      `json:"type"`
	Code    uint8      `json:"code"`
	From    netip.Addr `json:"from"`    // who reports the error
	Message string     `json:"message"` // what about: query, response
	MTU     uint32     `json:"mtu"`     // bytes that would have passed; 0: not about size
	Offset  Seconds    `json:"offset_seconds"`

	// Where the error itself was seen first.
	Node      string `json:"node"` // whose tracer saw it; empty: its name is unknown
	NetNS     uint32 `json:"netns"`
	NetNSName string `json:"netns_name"`
	IfName    string `json:"ifname"`
	Direction string `json:"direction"` // tx: it was sent there; rx: it came from elsewhere; empty: the kernel dropped it there
	// BPF says that an eBPF program made the error there, of the very packet that it is
	// about: no socket sent it, and it is in that packet's buffer. JSON leaves out false,
	// which says nothing.
	BPF bool `json:"bpf"`
}

// Name says in words what the error means, or nothing if it is a rare one.
func (i *ICMP) Name() string {
	type kind struct {
		v6         bool
		kind, code uint8
	}
	v6 := i.From.Is6() && !i.From.Is4In6()
	switch (kind{v6, i.Type, i.Code}) {
	case kind{false, 3, 0}:
		return "network unreachable"
	case kind{false, 3, 1}:
		return "host unreachable"
	case kind{false, 3, 3}, kind{true, 1, 4}:
		return "port unreachable"
	case kind{false, 3, 4}, kind{true, 2, 0}:
		return "packet too big"
	case kind{false, 3, 9}, kind{false, 3, 10}, kind{false, 3, 13}, kind{true, 1, 1}:
		return "prohibited by a firewall"
	case kind{false, 11, 0}, kind{true, 3, 0}:
		return "too many hops"
	case kind{true, 1, 0}:
		return "no route"
	case kind{true, 1, 3}:
		return "address unreachable"
	}
	return ""
}

// Fragments is what was seen of a message that IP fragmented, at the place
// where the most of it was seen.
type Fragments struct {
	Message   string `json:"message"`
	Seen      int    `json:"seen"`       // fragments
	SeenBytes int    `json:"seen_bytes"` // of the IP datagram's payload
	Size      *int   `json:"size"`       // bytes of all of it; nil: the last fragment was not seen
	Complete  bool   `json:"complete"`
}

// Endpoint is who sent or served a query, as far as known.
type Endpoint struct {
	Pod       string `json:"pod"`
	Namespace string `json:"namespace"`
	Node      string `json:"node"`
	Container string `json:"container"` // its name where Kubernetes tells it, else its id
	Process   string `json:"process"`   // the name of its first thread, as ps has it
	PID       int    `json:"pid"`       // in the node's own PID namespace; 0: unknown
	Cgroup    string `json:"cgroup"`    // path below the root of cgroup2

	// JSON leaves these out where they are not known, and Thread where it is Process.
	TID      int    `json:"tid"`      // the thread that sent, in the node's own PID namespace
	Thread   string `json:"thread"`   // its name
	Workload string `json:"workload"` // what the pod is of: Deployment/coredns
	Service  string `json:"service"`  // whose address was asked, namespace/name: kube-system/kube-dns
	// ServiceInferred says that no packet had the Service's address, and that it is the only
	// one that leads to the server, by what its EndpointSlices list. JSON leaves out false.
	ServiceInferred bool `json:"service_inferred"`
	// ServiceState is ServiceNoEndpoints where that is why the Service led nowhere.
	ServiceState string `json:"service_state"`
}

// ServiceNoEndpoints says of a Service that none of its endpoints was ready when it was
// asked, as the EndpointSlices tell.
const ServiceNoEndpoints = "no_ready_endpoint"
