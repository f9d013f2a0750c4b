package dnstrace

import (
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

const (
	// maxParts bounds the memory of a query that loops inside CoreDNS.
	maxParts = 128
	// open is the end of what is not finished.
	open = -1
	// notAnswered is when a query was answered that is not.
	notAnswered = -1
	// notSent is the rcode of a query that got no response.
	notSent = -1
)

// record is what becomes a line of an output: a query, or a refresh that one set off. Its owner
// is in query.go. All its times are in nanoseconds since the query's.
type record struct {
	plugin  *Dnstrace
	metrics *serverMetrics // of a query
	origin  *record        // of a refresh: that of its query
	ident   *identity
	own     identity // what ident points to, unless Metadata made one
	began   int64    // of a refresh
	took    int64    // of a refresh
	server  netip.AddrPort

	size, opcode int
	bufsize      uint16
	do           bool
	rcode        int
	respSize     int
	answeredAt   int64 // the first message of the answer
	sentAt       int64 // the last one
	answeredBy   string
	cache        string
	outcome      string
	errText      string

	hops     []hopData // in order of start
	attempts []attemptData
	rate     *float64 // where sampling chose it

	// What the usual chain needs, loadbalance, cache and forward, and one upstream that answers.
	inlineHops     [3]hopData
	inlineAttempts [1]attemptData
}

// hopData is the call of a handler.
type hopData struct {
	name       string
	by         *hop // what called it, if that is ours
	began, end int64
	asks       dns.Question // what it was called with, without a name if that is not known
	result     result
	told       string // of a cache: what it says that it did
	parent     int    // the hop above, or none
}

// attemptData is an attempt to ask an upstream.
type attemptData struct {
	number     int    // counts those of a query and of the refreshes that it set off
	address    string // or unknownPeer
	hop        int    // that made it, or none
	began, end int64
	stamped    bool
	failed     bool  // its span says so
	err        error // and this

	outcome, errText string // judged when the record is complete
}

// isFull reports whether a record has no room for another part.
func (rec *record) isFull() bool { return len(rec.hops)+len(rec.attempts) >= maxParts }

// deepest returns the hop that works on the answer now, or none: every hop waits for
// the one after it, so it is the last that is open.
func (rec *record) deepest() int {
	for i := len(rec.hops) - 1; i >= 0; i-- {
		if rec.hops[i].end == open {
			return i
		}
	}
	return none
}

// asked reports whether a hop asked an upstream, so that its answer is relayed.
func (rec *record) asked(hop int) bool {
	for i := range rec.attempts {
		if rec.attempts[i].hop == hop {
			return true
		}
	}
	return false
}

// hasHops reports whether a hop passed the query on.
func (rec *record) hasHops(hop int) bool {
	for i := range rec.hops {
		if rec.hops[i].parent == hop {
			return true
		}
	}
	return false
}

// merge adds what a refresh did while the hop of the cache waited for it.
func (rec *record) merge(part *record, above int) {
	first := len(rec.hops)
	for _, h := range part.hops {
		if h.parent += first; h.parent < first {
			h.parent = above
		}
		rec.hops = append(rec.hops, h)
	}
	for _, a := range part.attempts {
		a.hop += first
		rec.attempts = append(rec.attempts, a)
	}
}

// settings returns what is known of the handler of a hop, if it is noted.
func (rec *record) settings(hop int) *settings {
	if hop == none { // the record was full
		return new(settings)
	}
	switch h := &rec.hops[hop]; {
	case h.by != nil:
		return h.by.known()
	case h.parent != none && h.name == forwardPlugin:
		// The forwards of a server block know each other, and have nothing between them.
		if s := rec.settings(h.parent).next; s != nil {
			return s
		}
	}
	return new(settings)
}

// handOver counts a record, and gives it to the outputs if it is to be written.
func (rec *record) handOver() {
	rec.judge()
	rec.checkAttempts()
	rec.count()
	rate, keeps := rec.plugin.policy.keeps(rec)
	if !keeps {
		return
	}
	rec.rate = rate
	for _, o := range rec.plugin.outputs {
		o.queue.push(rec)
	}
}

// kind returns the kind of the record.
func (rec *record) kind() string {
	if rec.origin != nil {
		return trace.KindRefresh
	}
	return trace.KindQuery
}

// hasFailed reports whether a query failed, or an attempt of it, even if another made up for it. A
// refresh has no client: only its attempts can fail.
func (rec *record) hasFailed() bool {
	if rec.origin == nil && (rec.outcome != trace.OutcomeAnswered || rec.errText != "" ||
		rec.rcode == dns.RcodeServerFailure || rec.rcode == dns.RcodeRefused) {
		return true
	}
	for i := range rec.attempts {
		a := trace.Attempt{Outcome: rec.attempts[i].outcome, Plugin: rec.makerOf(i)}
		if rec.attempts[i].end != open {
			a.Duration = new(trace.Seconds)
		}
		if a.MayHaveFailed() {
			return true
		}
	}
	return false
}

// makerOf returns the name of the plugin that made an attempt.
func (rec *record) makerOf(attempt int) string {
	if hop := rec.attempts[attempt].hop; hop != none {
		return rec.hops[hop].name
	}
	return ""
}

// duration returns how long the client waited, or a refresh worked.
func (rec *record) duration() time.Duration {
	if rec.origin != nil {
		return time.Duration(rec.took)
	}
	return time.Duration(rec.sentAt)
}
