package top

import (
	"maps"

	"github.com/dnstrace/dnstrace/trace"
)

// maxRecent bounds the lookups without an answer that are remembered: one that goes on is
// reported again, and replaces the earlier report.
const maxRecent = 4096

// traceKey identifies a trace: what replaces it has the same.
type traceKey struct {
	id trace.TraceID
	at int64 // ns since 1970
}

func keyOf(t *trace.Trace) traceKey { return traceKey{t.TraceID, t.Time.UnixNano()} }

// countedLookup is what was counted of a lookup: for its client first, then for each
// attempt.
type countedLookup struct {
	slot   *slot
	lookup lookup
	rows   []counted
}

// counted is what a row got.
type counted struct {
	row      *sum
	counts   counts
	measured bool // its latency is among those of the row
}

// uncount takes a lookup out of the sums, to be counted as it is reported now. It stays in
// the busiest second, and its latencies stay: neither is counted again.
func (c *countedLookup) uncount() {
	c.slot.total.remove(&c.lookup)
	for i := range c.rows {
		r := &c.rows[i]
		r.row.counts.sub(&r.counts)
	}
}

// measured tells whether the latency of the ith row is counted already.
func (c *countedLookup) measured(i int) bool {
	return c != nil && i < len(c.rows) && c.rows[i].measured
}

// recent remembers the last lookups without an answer.
type recent struct {
	of    map[traceKey]*countedLookup
	order []traceKey // a ring, once it is full
	next  int
}

func (r *recent) keep(k traceKey, c *countedLookup) {
	if r.of == nil {
		r.of = map[traceKey]*countedLookup{}
	}
	if len(r.order) < maxRecent {
		r.order = append(r.order, k)
	} else {
		delete(r.of, r.order[r.next])
		r.order[r.next] = k
		r.next = (r.next + 1) % maxRecent
	}
	r.of[k] = c
}

// take returns what was counted of a trace, nil if that is not remembered.
func (r *recent) take(k traceKey) *countedLookup {
	c := r.of[k]
	delete(r.of, k)
	return c
}

// forget drops the lookups of a part of the window that is over.
func (r *recent) forget(p *slot) {
	maps.DeleteFunc(r.of, func(_ traceKey, c *countedLookup) bool { return c.slot == p })
}
