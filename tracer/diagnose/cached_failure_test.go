package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A resolver that asks a server three times for one lookup, and gets each time what that has
// cached, has one finding.
func TestCachedFailureIsToldOnce(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	cached := func(name string) *trace.Query {
		q := &trace.Query{DNS: trace.DNS{QName: name, QType: "A", RCode: "SERVFAIL"}, Cache: trace.CacheHit}
		q.Time = at
		return q
	}
	tr := &trace.Trace{QName: "a.example.", QType: "A", RCode: "SERVFAIL", Outcome: trace.OutcomeAnswered}
	for _, name := range []string{"a.example.", "a.example.", "b.example.", "a.example."} {
		tr.Upstreams = append(tr.Upstreams, trace.Upstream{Query: cached(name)})
	}
	found := cachedFailure(newMemory(), tr)
	if len(found) != 2 {
		t.Fatalf("%d findings, expected one of each name: %+v", len(found), found)
	}
	if !strings.HasSuffix(found[0].Summary, "; asked 3 times for this lookup.") || strings.Contains(found[1].Summary, "times") {
		t.Errorf("%q, %q", found[0].Summary, found[1].Summary)
	}
}
