package exchange

import (
	"time"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Reshare notes that another share of the lookups is reported since some time, of
// which all packets have come. An exchange that was under way then and is in one of
// the shares only was seen in part: it would look unanswered, or begin in the middle.
// It is discarded as if it had not been in either.
//
// A query that had waited for longer than a healthy one did so before any share
// changed: it stays, and says that packets are missing.
func (t *Table) Reshare(c capture.ShareChange) {
	t.part, t.whole = c.After != capture.WholeShare, c.At
	var discarded []*open
	for _, e := range t.due {
		ex := e.Item
		before, after := ex.in(c.Before), ex.in(c.After)
		switch {
		case before == after:
		case before && t.answered(ex):
		case before && (ex.first < c.At-int64(linger) || len(ex.drops) > 0):
			ex.lostEvents++ // one at least
		case before || ex.first >= c.At && ex.first <= c.At+int64(Crossing):
			discarded = append(discarded, ex)
		}
	}
	for _, ex := range discarded {
		t.stats.Discarded++
		t.remove(ex)
	}
}

// Whole tells whether the packets of all lookups were reported since a time.
func (t *Table) Whole(since time.Time) bool {
	return !t.part && (t.whole == 0 || !t.cfg.Wall(t.whole).After(since))
}

// in tells whether the programs report the packets of an exchange.
func (ex *open) in(s capture.Share) bool {
	return s.Has(ex.key.protocol, ex.key.id, ex.key.client.Port())
}
