package assemble

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// refreshOf makes the record of work that a query set off.
func refreshOf(q *trace.Query, after time.Duration, attempts ...trace.Attempt) *trace.Refresh {
	r := &trace.Refresh{Cause: "prefetch", Upstreams: attempts}
	r.Header, r.DNS = q.Header, q.DNS
	r.Record, r.Time = trace.KindRefresh, q.Time.Add(after)
	r.DNS.Duration = trace.SecondsPtr(2 * time.Millisecond)
	return r
}

// A hit, what it set off in the background, and the upstream exchange of that,
// long after the hit was passed on.
func TestRefresh(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, time.Millisecond)
	q := record(ex, 20*time.Microsecond, 500*time.Microsecond)
	r := refreshOf(q, time.Millisecond, attempt(1, 100*time.Microsecond, 1500*time.Microsecond, trace.OutcomeOK))
	upstreamQuery := toUpstream("a.example.", 2000, 1300*time.Microsecond, time.Millisecond)
	upstreamQuery.Protocol = "tcp"
	traces := assemble(upstreamQuery, r, q, ex)
	if len(traces) != 2 {
		t.Fatalf("%d traces", len(traces))
	}
	var background *trace.Trace
	for _, tr := range traces {
		if tr.Query == nil {
			background = tr
		} else if len(tr.Upstreams) != 0 {
			t.Errorf("the hit has %d upstreams", len(tr.Upstreams))
		}
	}
	if background == nil || background.TraceID != q.TraceID || len(background.Upstreams) != 1 || background.Upstreams[0].Join != trace.JoinExact {
		t.Fatalf("%+v", background)
	}
	if background.RCode != "NOERROR" || background.Duration.Duration() != 1600*time.Microsecond {
		t.Errorf("rcode %s, took %s", background.RCode, background.Duration.Duration())
	}
	if len(background.Gaps) != 1 || !strings.Contains(background.Gaps[0], "no client waited for it: it is a prefetch") {
		t.Errorf("gaps %q", background.Gaps)
	}
}

// A miss of another client at the same moment: whose upstream exchange it is stays
// ambiguous, and one has none.
func TestRefreshIsNoGuess(t *testing.T) {
	hit := fromClient("a.example.", 1000, 0, time.Millisecond)
	q := record(hit, 20*time.Microsecond, 500*time.Microsecond)
	r := refreshOf(q, time.Millisecond, attempt(1, 100*time.Microsecond, 1500*time.Microsecond, trace.OutcomeOK))
	other := fromClient("a.example.", 3000, time.Millisecond, 2*time.Millisecond)
	miss := record(other, 20*time.Microsecond, 1900*time.Microsecond, attempt(1, 100*time.Microsecond, 1500*time.Microsecond, trace.OutcomeOK))
	upstreamQuery := toUpstream("a.example.", 2000, 1300*time.Microsecond, time.Millisecond)
	joins := map[string]int{}
	for _, tr := range assemble(upstreamQuery, r, q, hit, miss, other) {
		for _, u := range tr.Upstreams {
			joins[u.Join]++
		}
	}
	if joins[trace.JoinInferred] != 1 || joins[trace.JoinNone] != 1 {
		t.Errorf("joins between equals: %v", joins)
	}
}

// The upstream is silent: the trace does not have the code of the stale answer
// that its client got.
func TestRefreshInVain(t *testing.T) {
	ex := fromClient("a.example.", 1000, 0, time.Millisecond)
	q := record(ex, 20*time.Microsecond, 500*time.Microsecond)
	r := refreshOf(q, time.Millisecond, attempt(1, 0, 2*time.Second, trace.OutcomeTimeout))
	r.Cause = "stale"
	for _, tr := range assemble(r, q, ex, toUpstream("a.example.", 2000, 1100*time.Microsecond, 0)) {
		if tr.Query == nil && (tr.RCode != "" || tr.Outcome != trace.OutcomeUnanswered || tr.Upstreams[0].Join != trace.JoinExact) {
			t.Errorf("rcode %q, %s, %+v", tr.RCode, tr.Outcome, tr.Upstreams)
		}
	}
}
