package trace

import "net/netip"

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

// Connects tells whether it is an attempt to open a TCP connection, of which
// nothing came: its query is the SYN, and there is no question. The numbers of a
// message mean nothing then, and are null in JSON.
func (d *DNS) Connects() bool { return d.QName == "" && d.Protocol == "tcp" }
