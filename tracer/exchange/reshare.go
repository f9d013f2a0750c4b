package exchange

import (
	"container/heap"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Reshare notes that another share of the lookups is reported since some time, of
// which all packets have come. An exchange that was under way then and is in one of
// the shares only was seen in part: it would look unanswered, or begin in the middle.
// It is forgotten as if it had not been in either.
//
// A query that had waited for longer than a healthy one did so before any share
// changed: it stays, and says that packets are missing.
func (t *Table) Reshare(c capture.ShareChange) {
	var cut []*open
	for _, ex := range t.due {
		before, after := ex.in(c.Before), ex.in(c.After)
		switch {
		case before == after:
		case before && len(ex.arrived) > 0:
		case before && (ex.first < c.At-int64(settle) || ex.dropSeen):
			ex.record.LostEvents++ // one at least
		case before || ex.first >= c.At && ex.first <= c.At+int64(Crossing):
			cut = append(cut, ex)
		}
	}
	for _, ex := range cut {
		heap.Remove(&t.due, ex.index)
		t.stats.Cut++
		t.forget(ex)
	}
}

// in tells whether the programs report the packets of an exchange.
func (ex *open) in(s capture.Share) bool {
	return s.Has(ex.keys[0].protocol, ex.keys[0].id, ex.record.ClientPort)
}
