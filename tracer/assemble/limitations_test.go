package assemble

import (
	"slices"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// What the kernel does not tell is said in the traces that it concerns, and in no
// others.
func TestLimitationsAreGaps(t *testing.T) {
	limits := Limitations{Process: "no process", Reason: "no reason"}
	left := trace.Exchange{}
	left.Milestones.Query.Left = see(&left, trace.MessageQuery, trace.DirectionTX, 1, 0)
	came := trace.Exchange{}
	came.Milestones.Query.Left = trace.NotObservable
	came.Milestones.Query.Arrived = see(&came, trace.MessageQuery, trace.DirectionRX, 1, 0)
	with := func(ex trace.Exchange, client *trace.Endpoint, drops ...trace.Drop) trace.Exchange {
		ex.Client, ex.Drops = client, drops
		return ex
	}
	for _, tc := range []struct {
		name   string
		limits Limitations
		ex     trace.Exchange
		want   []string
	}{
		{"sent here", limits, left, []string{"no process"}},
		{"sent here, its cgroup is known", limits, with(left, &trace.Endpoint{Cgroup: "/a"}), []string{"no process"}},
		{"from another node", limits, came, nil},
		{"dropped", limits, with(came, nil, trace.Drop{Where: "nf_hook_slow"}), []string{"no reason"}},
		{"the last drop counts", limits, with(came, nil, trace.Drop{}, trace.Drop{Reason: "NO_SOCKET"}), nil},
		{"the kernel tells", Limitations{}, with(left, nil, trace.Drop{}), nil},
		{"it reported both", limits, with(left, &trace.Endpoint{PID: 7}, trace.Drop{Reason: "NO_SOCKET"}), nil},
	} {
		if got := tc.limits.gaps(&tc.ex); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, expected %q", tc.name, got, tc.want)
		}
	}
}

// Where the kernel leaves lookups out, a trace says so if packets of it were not seen,
// and not if all were.
func TestUnsampledIsAGap(t *testing.T) {
	const gap = "left out"
	records := miss("a.example.", 1000, 0)
	upstream, query, client := records[0], records[1], records[2]
	for name, tc := range map[string]struct {
		records []trace.Record
		want    bool
	}{
		"all of it":             {records, false},
		"the server's alone":    {[]trace.Record{query}, true},
		"without the upstream":  {[]trace.Record{query, client}, true},
		"without the client":    {[]trace.Record{upstream, query}, true},
		"the client's alone":    {[]trace.Record{client}, false},
		"no sampling, a record": {[]trace.Record{query}, false},
	} {
		cfg := Config{Limitations: Limitations{Unsampled: gap}}
		if name == "no sampling, a record" {
			cfg.Limitations.Unsampled = ""
		}
		a := New(cfg)
		for _, r := range tc.records {
			a.Add(r)
		}
		traces := a.Flush()
		if len(traces) != 1 || slices.Contains(traces[0].Gaps, gap) != tc.want {
			t.Errorf("%s: %d traces, %q", name, len(traces), traces[0].Gaps)
		}
	}
}
