package exchange

import (
	"time"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// ThresholdChanged applies a step of load shedding once all packets of its time have come.
// An exchange that was under way then and is selected by only one of the thresholds was
// seen in part: it would look unanswered, or begin in the middle. It is discarded as if
// neither selected it.
//
// A query that had by then waited for longer than a healthy one does stays, and says that
// packets are missing.
func (t *Table) ThresholdChanged(c capture.ThresholdChange) {
	t.shedding, t.thresholdChanged = c.After != capture.AllLookups, c.At
	var discarded []*open
	for _, e := range t.due {
		ex := e.Item
		before, after := ex.selectedBy(c.Before), ex.selectedBy(c.After)
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

// AllReported tells whether the packets of all lookups were reported since a time.
func (t *Table) AllReported(since time.Time) bool {
	return !t.shedding && (t.thresholdChanged == 0 || !t.cfg.Wall(t.thresholdChanged).After(since))
}

// selectedBy tells whether the programs report the packets of an exchange.
func (ex *open) selectedBy(t capture.Threshold) bool {
	return t.Selects(ex.key.protocol, ex.key.id, ex.key.client.Port())
}
