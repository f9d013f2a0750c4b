package trace

import (
	"net/netip"
	"slices"
	"time"
)

// Version is the version of the records (`v`).
const Version = 1

// Kinds of record (`record`).
const (
	KindQuery    = "query"
	KindRefresh  = "refresh"
	KindExchange = "exchange"
	KindTrace    = "trace"
)

// Outcomes of a query, an attempt, an exchange and a trace.
const (
	OutcomeAnswered   = "answered"    // query, exchange, trace: a response was sent (seen)
	OutcomeRefused    = "refused"     // query: CoreDNS answered REFUSED
	OutcomeNoResponse = "no_response" // query: nothing was written
	OutcomeError      = "error"       // query, attempt: it failed; `error` says how
	OutcomeOK         = "ok"          // attempt: the upstream answered
	OutcomeTimeout    = "timeout"     // attempt: the upstream was silent
	OutcomeFailed     = "failed"      // attempt: it timed out or failed; CoreDNS does not tell which
	OutcomeUnanswered = "unanswered"  // exchange, trace: no response was seen
	OutcomeDropped    = "dropped"     // exchange, trace: no response, and a drop was seen
)

// What the cache had to say about a query (`cache`).
const (
	CacheHit   = "hit"
	CacheMiss  = "miss"
	CacheStale = "stale"
	CacheNone  = "none" // no cache on the query's way; an empty string, null in JSON: unknown
)

// RoleUpstream is the role of a trace that is no client's lookup: a server's upstream
// query that could not be given to the lookup that it was sent for.
const RoleUpstream = "upstream"

// How a side was joined to a trace (`join`).
const (
	JoinExact    = "exact"    // TRACEPARENT or an unmistakable match proves it
	JoinInferred = "inferred" // address, question and time suggest it
	JoinNone     = "none"     // a side is missing
)

// What a packet carried, and which way it went through a device or how far into a
// socket.
const (
	MessageQuery       = "query"
	MessageResponse    = "response"
	DirectionRX        = "rx"        // received from the device
	DirectionTX        = "tx"        // given to the device
	DirectionDelivered = "delivered" // in the queue of its receiver's socket
	DirectionRead      = "read"      // taken out of it by its process
)

// Record is one of the records that dnstrace writes.
type Record interface {
	// Head returns the fields that every record has.
	Head() *Header
	// Kind returns the value of `record`.
	Kind() string
	// AppendJSON appends the record as one JSON object, without a newline.
	AppendJSON(b []byte) []byte
}

// Header is what every record has.
type Header struct {
	V       int       `json:"v"`
	Record  string    `json:"record"`
	Time    time.Time `json:"time"`
	TraceID TraceID   `json:"trace_id"`
	Flow    Flow      `json:"flow"`
}

// Head implements Record.
func (h *Header) Head() *Header { return h }

// DNS is one question and what was answered. The names are those of CoreDNS's
// own JSON log (plugin/log/json.go). An empty string, nil or the zero address
// is "unknown" and null in JSON.
type DNS struct {
	ClientIP     netip.Addr `json:"client_ip"`
	ClientPort   uint16     `json:"client_port"`
	QName        string     `json:"qname"` // lower case, absolute, presentation format
	QType        string     `json:"qtype"`
	QClass       string     `json:"qclass"`
	Protocol     string     `json:"protocol"` // udp, tcp
	ID           uint16     `json:"id"`
	Opcode       int        `json:"opcode"`
	RequestSize  int        `json:"request_size"` // bytes
	DNSSECOK     bool       `json:"dnssec_ok"`
	BufSize      int        `json:"bufsize"` // bytes; 512 without EDNS, 65535 over TCP
	RCode        string     `json:"rcode"`   // empty where no response was seen
	ResponseSize *int       `json:"response_size"`
	Duration     *Seconds   `json:"duration_seconds"` // nil where no response was seen
}

// Hop is the time that a query spent in one plugin and those after it.
type Hop struct {
	Plugin   string   `json:"plugin"`
	Parent   *int     `json:"parent"` // index in the same list
	Start    Seconds  `json:"start_seconds"`
	Duration *Seconds `json:"duration_seconds"` // nil: not finished when the record was made
}

// Attempt is one try to get an answer from an upstream. JSON leaves out the name and
// the type that were asked for where they are those of the query.
type Attempt struct {
	Attempt  int      `json:"attempt"` // from 1
	Address  string   `json:"address"` // as configured: host:port, or a URL
	Start    Seconds  `json:"start_seconds"`
	Duration *Seconds `json:"duration_seconds"`
	Outcome  string   `json:"outcome"`
	Error    string   `json:"error"`
	Plugin   string   `json:"plugin"`
	QName    string   `json:"qname"` // as in DNS; empty: the query's own
	QType    string   `json:"qtype"` // likewise
}

// Query is one query inside one CoreDNS, written by the plugin.
type Query struct {
	Header
	DNS
	SpanID       SpanID     `json:"span_id"`
	ParentSpanID *SpanID    `json:"parent_span_id"`
	ServerIP     netip.Addr `json:"server_ip"`
	ServerPort   uint16     `json:"server_port"`
	Zone         string     `json:"zone"`
	Cache        string     `json:"cache"`
	AnsweredBy   string     `json:"answered_by"`
	Outcome      string     `json:"outcome"`
	Error        string     `json:"error"`
	Hops         []Hop      `json:"hops"`
	Upstreams    []Attempt  `json:"upstreams"`
	Stamped      bool       `json:"stamped"`
	Sample       *float64   `json:"sample"` // the rate, where sampling chose the lookup; nil: recorded whatever the rate

	// Unverified tells that the tracer could not tell whether the process that sent the
	// record is the server of the query: it is shown, and nothing is concluded from it.
	// JSON leaves out false.
	Unverified bool `json:"unverified,omitzero"`
}

// Refresh is background work in CoreDNS that a query set off, written by the
// plugin. Its times count from its own `time`.
type Refresh struct {
	Header
	DNS
	Cause     string    `json:"cause"` // prefetch, stale
	Hops      []Hop     `json:"hops"`
	Upstreams []Attempt `json:"upstreams"`
	Sample    *float64  `json:"sample"` // as in Query
}

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
	// Since is when the tracer was told that the endpoint was removed or not ready
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
	Where     string  `json:"where"`  // kernel symbol
	Reason    string  `json:"reason"` // enum skb_drop_reason without its prefix; empty: the kernel gives none
	Words     string  `json:"words"`  // what where and reason mean; empty: they do not tell
	Message   string  `json:"message"`
	Node      string  `json:"node"` // whose tracer saw it; empty: its name is unknown
	NetNS     uint32  `json:"netns"`
	NetNSName string  `json:"netns_name"`
	IfName    string  `json:"ifname"` // empty where the packet had no device yet
	Offset    Seconds `json:"offset_seconds"`
	// BPF names the kind of eBPF program that dropped it ("tc ingress", "XDP"); empty,
	// and absent in JSON: none did.
	BPF string `json:"bpf"`

	// Entries that the namespace's connection tracking had, and might have, where it
	// had none for the packet. JSON leaves both out where they are not known.
	ConntrackCount uint32 `json:"conntrack_count"`
	ConntrackMax   uint32 `json:"conntrack_max"` // 0: neither is known
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
	From    netip.Addr `json:"from"`    // who complains
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

// Fragments is what was seen of a message that IP cut into pieces, at the place
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

// Exchange is a query and its response on the wire, as one node saw them.
type Exchange struct {
	Header
	DNS
	ServerIP      netip.Addr `json:"server_ip"` // as the client addressed it
	ServerPort    uint16     `json:"server_port"`
	NAT           *NAT       `json:"nat"`
	Outcome       string     `json:"outcome"`
	Transmissions int        `json:"transmissions"`
	// Outstanding is how many other queries of the same client's address to the same server
	// waited for a response when this one was sent. JSON leaves out 0.
	Outstanding int         `json:"outstanding"`
	Path        Path        `json:"path"`
	Milestones  Milestones  `json:"milestones"`
	Drops       []Drop      `json:"drops"`    // in order of time
	Rejected    []Rejection `json:"rejected"` // in order of time
	Reset       *Reset      `json:"reset"`
	// ListenFull tells that the last SYN that reached its listener found no room in the queue
	// of connections, and was ignored. JSON leaves out false.
	ListenFull bool `json:"listen_full"`
	// Replaces tells that a record with the same trace_id and time was written before
	// this one, which went on: this is all of it. JSON leaves out false.
	Replaces  bool `json:"replaces"`
	Truncated bool `json:"truncated"` // the response had TC set
	// Respelled tells that the response has the name in other upper and lower case than the
	// query. JSON leaves out false.
	Respelled   bool      `json:"respelled"`
	Traceparent string    `json:"traceparent"`
	Client      *Endpoint `json:"client"`
	Server      *Endpoint `json:"server"`
	LostEvents  uint64    `json:"lost_events"`
	PathOmitted int       `json:"path_omitted"` // sightings that are not in Path, which had too many; JSON leaves out 0
	Node        string    `json:"node"`         // whose tracer saw it; empty: its name is unknown

	Flags         []string       `json:"flags"`        // set in the response: aa, tc, rd, ra, ad, cd
	AnswerCount   *int           `json:"answer_count"` // records in its answer section; nil: no response was seen
	Answers       []Answer       `json:"answers"`      // the addresses and aliases among them, as far as captured
	MinTTL        *uint32        `json:"min_ttl"`      // seconds, of the answers that were captured, whatever their type
	ExtendedError *ExtendedError `json:"extended_error"`
	ICMP          *ICMP          `json:"icmp"` // the first one about it
	Fragments     *Fragments     `json:"fragments"`

	Sample *float64 `json:"sample"` // as in Query
	// SampledInKernel tells that the programs chose it: packets that are of another
	// lot, because the client has another address there, were left out. JSON leaves
	// out false.
	SampledInKernel bool `json:"sampled_in_kernel"`
}

// Incomplete tells whether packets of it may be missing, because the tracer lost some
// in its time, or did not see that the client has one address all the way, by which
// the kernel drew the lot of each.
func (e *Exchange) Incomplete() bool {
	return e.LostEvents > 0 || e.SampledInKernel && (e.NAT == nil || e.NAT.ClientIP.IsValid())
}

// Connects tells whether it is an attempt to open a TCP connection, of which
// nothing came: its query is the SYN, and there is no question. The numbers of a
// message mean nothing then, and are null in JSON.
func (d *DNS) Connects() bool { return d.QName == "" && d.Protocol == "tcp" }

// Clone returns a copy whose lists can be appended to, and whose parts can be
// replaced, without a change to e.
func (e *Exchange) Clone() *Exchange {
	c := *e
	c.Path = e.Path.Clone()
	c.Drops = slices.Clone(e.Drops)
	c.Rejected = slices.Clone(e.Rejected)
	return &c
}

// LastDrop returns the last drop, which decided; nil where there was none.
func (e *Exchange) LastDrop() *Drop {
	if len(e.Drops) == 0 {
		return nil
	}
	return &e.Drops[len(e.Drops)-1]
}

// AtClient tells whether it was seen where its client is: the query left a socket
// there, and did not come from beyond what is observed.
func (e *Exchange) AtClient() bool { return e.Milestones.Query.Left.Seen() }

// ClientPlace returns the namespace of the client, false where that was not seen. A query
// that was dropped before any device sent it shows it too, where its process is known, or
// where it had no device yet: only its sender's packets have none.
func (e *Exchange) ClientPlace() (Place, bool) {
	if d := e.droppedAtOnce(); d != nil && (e.Client != nil && e.Client.PID != 0 || d.IfName == "") {
		return d.Place(), true
	}
	s, ok := e.Sighting(e.Milestones.Query.Left)
	return s.Place(), ok
}

// droppedAtOnce returns the drop of a query that was not seen anywhere before; nil if
// there is none.
func (e *Exchange) droppedAtOnce() *Drop {
	if e.Path.Len() > 0 || len(e.Drops) == 0 || e.Drops[0].Message != MessageQuery {
		return nil
	}
	return &e.Drops[0]
}

// ServerPlace returns the namespace in which the server is: where its response left,
// else where the query arrived. False where neither was seen.
func (e *Exchange) ServerPlace() (Place, bool) {
	s, ok := e.Sighting(e.Milestones.Response.Left)
	if !ok {
		s, ok = e.Sighting(e.Milestones.Query.Arrived)
	}
	return s.Place(), ok
}

// Last returns the last sighting of a message up to some time after the first packet;
// false if there is none.
func (e *Exchange) Last(message string, until Seconds) (last Sighting, ok bool) {
	for _, s := range e.Path.All() {
		if s.Message == message && s.Offset <= until {
			last, ok = s, true
		}
	}
	return last, ok
}

// Finding is a named cause, or how far the evidence goes.
type Finding struct {
	Code     string   `json:"code"`
	Summary  string   `json:"summary"`
	Evidence []string `json:"evidence"`
	Advice   string   `json:"advice"`
	// InDoubt says that it rests on something that was not seen, while the tracer lost
	// packets. JSON leaves it out where it is false.
	InDoubt bool `json:"in_doubt"`
}

// Upstream is one attempt to resolve a lookup further up.
type Upstream struct {
	Attempt  *Attempt  `json:"attempt"`
	Exchange *Exchange `json:"exchange"`
	// Earlier are the exchanges of the same attempt before that: over UDP before TCP,
	// or on a connection that was found closed. JSON leaves it out where it is empty.
	Earlier   []*Exchange `json:"earlier"`
	Join      string      `json:"join"`
	Query     *Query      `json:"query"` // where the upstream is an observed server
	Upstreams []Upstream  `json:"upstreams"`
}

// Trace is one lookup, joined from what all observers saw.
type Trace struct {
	Header
	QName    string   `json:"qname"`
	QType    string   `json:"qtype"`
	RCode    string   `json:"rcode"`
	Duration *Seconds `json:"duration_seconds"`
	Outcome  string   `json:"outcome"`
	// Role is RoleUpstream where a server sent it, on behalf of a lookup that is not
	// known. JSON leaves it out where it is empty: a client's lookup.
	Role       string     `json:"role"`
	Client     *Endpoint  `json:"client"`
	Server     *Endpoint  `json:"server"`
	Exchange   *Exchange  `json:"exchange"`
	Query      *Query     `json:"query"`
	Upstreams  []Upstream `json:"upstreams"`
	Resolution string     `json:"resolution"`
	// ResolutionJoin is JoinExact where one socket proves that it is of that call,
	// JoinInferred where process, names and times suggest it.
	ResolutionJoin string `json:"resolution_join"`
	// ClockOffset is how far the clock of the server, or of its node, is ahead of
	// that of the client's node; nil: they are one, or it cannot be told.
	ClockOffset *Seconds  `json:"clock_offset_seconds"`
	Gaps        []string  `json:"gaps"`
	Diagnosis   []Finding `json:"diagnosis"`
	Replaces    bool      `json:"replaces"` // as in Exchange
	Sample      *float64  `json:"sample"`   // as in Query

	// Stopped tells that its client was not seen to go on with its call for a second after
	// an answer with which a resolver goes on: truncated over UDP, or SERVFAIL for a name of
	// a search list. It is for the diagnosis alone: no JSON has it.
	Stopped bool `json:"-"`
}

// Kind implements Record.
func (*Query) Kind() string { return KindQuery }

// Kind implements Record.
func (*Refresh) Kind() string { return KindRefresh }

// Kind implements Record.
func (*Exchange) Kind() string { return KindExchange }

// Kind implements Record.
func (*Trace) Kind() string { return KindTrace }

// Recorded returns the server's record of the lookup if something may be concluded from
// it, else nil.
func (t *Trace) Recorded() *Query {
	if t.Query == nil || t.Query.Unverified {
		return nil
	}
	return t.Query
}

// GapNotRecorded in [Trace.Gaps] says that the server's records of other queries
// arrive, and that this one was not seen to reach it: together with the missing
// record, proof that it did not get the query.
const GapNotRecorded = "it was not seen to reach the server, which records its queries and has no record of this one"
