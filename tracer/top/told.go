package top

import (
	"maps"

	"github.com/dnstrace/dnstrace/trace"
)

// maxTold bounds the lookups without an answer that are remembered: one that goes on
// is told again, and replaces what was told.
const maxTold = 4096

// toldKey names a trace: what replaces it has the same.
type toldKey struct {
	id trace.TraceID
	at int64 // ns since 1970
}

func keyOf(t *trace.Trace) toldKey { return toldKey{t.TraceID, t.Time.UnixNano()} }

// told is what was counted of a lookup: for its client first, then for each attempt.
type told struct {
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

// uncount takes a lookup out of the sums, to be counted as it is told now. It stays
// in the busiest second, and latencies stay: both are not counted again.
func (c *told) uncount() {
	c.slot.total.remove(&c.lookup)
	for i := range c.rows {
		r := &c.rows[i]
		r.row.counts.sub(&r.counts)
	}
}

// measured tells whether the latency of the ith row is counted already.
func (c *told) measured(i int) bool { return c != nil && i < len(c.rows) && c.rows[i].measured }

// recent remembers the last lookups without an answer.
type recent struct {
	of    map[toldKey]*told
	order []toldKey // a ring, once it is full
	next  int
}

func (r *recent) keep(k toldKey, c *told) {
	if r.of == nil {
		r.of = map[toldKey]*told{}
	}
	if len(r.order) < maxTold {
		r.order = append(r.order, k)
	} else {
		delete(r.of, r.order[r.next])
		r.order[r.next] = k
		r.next = (r.next + 1) % maxTold
	}
	r.of[k] = c
}

// take returns what was counted of a trace, nil if that is not remembered.
func (r *recent) take(k toldKey) *told {
	c := r.of[k]
	delete(r.of, k)
	return c
}

// forget lets go of the lookups of a part of the window that is over.
func (r *recent) forget(p *slot) {
	maps.DeleteFunc(r.of, func(_ toldKey, c *told) bool { return c.slot == p })
}
