package dnstrace

import (
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

const (
	// maxParts bounds the memory of a query that loops inside CoreDNS.
	maxParts = 128
	// open is the duration of what has not ended.
	open = -1
	// notSent is the rcode of a query without a response.
	notSent = -1
)

// record becomes a line of an output: what was done for a query, or for a refresh that it set off. query.go says
// who may change it. Times are in nanoseconds since the query's.
type record struct {
	q        *query
	closed   bool
	hops     []*span // in order of start
	attempts []*span
	rate     *float64 // nil unless sampling chose it

	// Of a refresh.
	began, took int64 // took is open while it goes on
	verifies    bool  // the cache may wait for it

	// Room for the usual chain, loadbalance, cache and forward, and one upstream that answers.
	inlineHops     [3]*span
	inlineAttempts [1]*span
}

func (rec *record) init(q *query) {
	rec.q, rec.took = q, open
	rec.hops, rec.attempts = rec.inlineHops[:0], rec.inlineAttempts[:0]
}

// isFull reports whether a record has maxParts hops and attempts.
func (rec *record) isFull() bool { return len(rec.hops)+len(rec.attempts) >= maxParts }

// isRefresh reports whether it is the record of a refresh.
func (rec *record) isRefresh() bool { return rec != &rec.q.record }

// deepest returns the hop that answers now, or nil. Every hop waits for the next one, so it is the last open one.
func (rec *record) deepest() *span {
	for _, h := range slices.Backward(rec.hops) {
		if h.took == open {
			return h
		}
	}
	return nil
}

// asked reports whether a hop asked an upstream, so that it relays an answer.
func (rec *record) asked(hop *span) bool {
	return slices.ContainsFunc(rec.attempts, func(a *span) bool { return a.hop() == hop })
}

// passedOn reports whether a hop called the next plugin, and whether it waits for that now.
func (rec *record) passedOn(hop *span) (passed, waits bool) {
	for _, h := range rec.hops {
		if h.parent.hop() == hop {
			passed = true
			waits = waits || h.took == open
		}
	}
	return passed, waits
}

// complete counts a closed record, and pushes it to the outputs if it is to be written. All queries are observed,
// because only their end shows which failed or were slow.
func (rec *record) complete() {
	d := rec.q.plugin
	rec.judge()
	d.checkAttempts(rec)
	rec.count()
	if d.sample < 1 && !rec.q.ident.sampled && !rec.hasFailed() && rec.duration() < d.slow {
		if !d.chooses(rec.q.ident) {
			return
		}
		rec.rate = &d.sample
	}
	for _, o := range d.outputs {
		o.push(rec)
	}
}

// chooses reports whether an ordinary query is recorded, because of sample or of the server that forwarded it.
func (d *Dnstrace) chooses(i *identity) bool {
	return i.sampled || trace.Sampled(trace.SamplingHash(i.transport(), i.id, i.client.Port()), d.sample)
}

// hasFailed reports whether a query failed, or one of its attempts, even if another succeeded. A refresh has no
// client: only its attempts can fail.
func (rec *record) hasFailed() bool {
	q := rec.q
	if !rec.isRefresh() && (q.outcome != trace.OutcomeAnswered || q.errText != "" ||
		q.rcode == dns.RcodeServerFailure || q.rcode == dns.RcodeRefused) {
		return true
	}
	return slices.ContainsFunc(rec.attempts, func(a *span) bool {
		attempt := a.encoded()
		return attempt.MayHaveFailed()
	})
}

// duration returns how long the client waited, or how long a refresh took.
func (rec *record) duration() time.Duration {
	if rec.isRefresh() {
		return time.Duration(rec.took)
	}
	return time.Duration(rec.q.sentAt)
}

// encoder encodes records. It is not safe for concurrent use.
type encoder struct {
	hops     []trace.Hop
	attempts []trace.Attempt
}

// append appends a record as a line.
func (e *encoder) append(b []byte, rec *record) []byte {
	q, i := rec.q, rec.q.ident.computed()
	header := trace.Header{Time: i.time.Add(time.Duration(rec.began)), TraceID: i.traceID, Flow: i.flow}
	e.hops, e.attempts = e.hops[:0], e.attempts[:0]
	for _, h := range rec.hops {
		hop := trace.Hop{Plugin: h.name, Start: trace.Seconds(h.began - rec.began), Duration: seconds(&h.took)}
		if above := h.parent.hop(); above != nil && above.rec == rec {
			hop.Parent = &above.index
		}
		e.hops = append(e.hops, hop)
	}
	for _, a := range rec.attempts {
		e.attempts = append(e.attempts, a.encoded())
	}
	if rec.isRefresh() {
		refresh := trace.Refresh{Header: header, DNS: q.dns(), Cause: refreshCause(q.cache), Hops: e.hops, Upstreams: e.attempts, Sample: rec.rate}
		return append(refresh.AppendJSON(b), '\n')
	}
	query := trace.Query{
		Header: header, DNS: q.dns(), SpanID: i.spanID,
		ServerPort: q.server.Port(), Zone: q.plugin.serverZones.match(i.q.Name), Cache: q.cache, AnsweredBy: q.answeredBy,
		Outcome: q.outcome, Error: q.errText, Hops: e.hops, Upstreams: e.attempts, Sample: rec.rate,
		Stamped: slices.ContainsFunc(rec.attempts, func(a *span) bool { return a.stamped }),
	}
	if !i.parentID.IsZero() { // a TRACEPARENT may lack it
		query.ParentSpanID = &i.parentID
	}
	// The local address of a server that listens on the wildcard address is not where the datagram arrived.
	if addr := q.server.Addr(); addr.IsValid() && !addr.IsUnspecified() {
		query.ServerIP = addr
	}
	return append(query.AppendJSON(b), '\n')
}

// encoded returns an attempt of a closed record as package trace has it.
func (s *span) encoded() trace.Attempt {
	a := trace.Attempt{Attempt: s.number, Address: s.address, Start: trace.Seconds(s.began - s.rec.began), Duration: seconds(&s.took),
		Outcome: s.outcome, Error: s.errText}
	if h := s.hop(); h != nil {
		a.Plugin = h.name
		a.QName, a.QType = h.askedFor()
	}
	return a
}

// seconds returns a duration as package trace has it, or nil while it is open.
func seconds(took *int64) *trace.Seconds {
	if *took == open {
		return nil
	}
	return (*trace.Seconds)(took)
}

// dns returns the fields of a query.
func (q *query) dns() trace.DNS {
	i := q.ident
	d := trace.DNS{
		ClientIP: i.client.Addr(), ClientPort: i.client.Port(), Protocol: i.proto, ID: i.id,
		QName: strings.ToLower(i.q.Name), QType: dns.Type(i.q.Qtype).String(), QClass: dns.Class(i.q.Qclass).String(),
		Opcode: q.opcode, RequestSize: q.size, DNSSECOK: q.do, BufSize: int(q.bufsize),
	}
	if q.rcode != notSent {
		d.RCode, d.ResponseSize, d.Duration = trace.RCodeName(q.rcode), &q.respSize, seconds(&q.sentAt)
	}
	return d
}
