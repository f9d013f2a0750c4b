package trace

import "time"

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
	// that of the client's node; nil: they are one, or it is unknown.
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
