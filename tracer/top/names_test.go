package top

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// An upstream is not called failing for a name that it never answers, as long as it
// answers more names than that; a name that it answers now and then does not excuse it.
func TestHealthByName(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		asked map[string][]string // how the queries for a name ended
		want  string
	}{
		{"one broken name of three", map[string][]string{"bad.": {"timeout", "error"}, "a.": {"ok"}, "b.": {"ok"}}, HealthPartial},
		{"half of the names", map[string][]string{"bad.": {"timeout"}, "a.": {"ok"}}, HealthFailing},
		{"names that are answered now and then", map[string][]string{"a.": {"ok", "timeout"}, "b.": {"ok"}}, HealthFailing},
		{"none", map[string][]string{"a.": {"timeout"}, "b.": {"timeout"}}, HealthDown},
		{"all", map[string][]string{"a.": {"ok"}, "b.": {"ok"}}, HealthOK},
	} {
		s := New(Config{})
		for name, outcomes := range tc.asked {
			for _, o := range outcomes {
				tr := &trace.Trace{QName: name, Outcome: trace.OutcomeAnswered, Query: &trace.Query{Upstreams: []trace.Attempt{{Attempt: 1, Address: "192.0.2.1:53", Outcome: o}}}}
				tr.Time = at
				s.Add(tr)
			}
		}
		if v := s.View(at); len(v.Upstreams) != 1 || v.Upstreams[0].Health != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, v.Upstreams, tc.want)
		}
	}
}
