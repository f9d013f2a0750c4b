package assemble

import (
	"slices"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// What the kernel does not tell is said in the traces that it concerns, and in no
// others.
func TestLacksAreGaps(t *testing.T) {
	lacks := Lacks{Process: "no process", Reason: "no reason"}
	left := []trace.Sighting{{Message: trace.MessageQuery, Direction: trace.DirectionTX, NetNS: 1}}
	came := []trace.Sighting{{Message: trace.MessageQuery, Direction: trace.DirectionRX, NetNS: 1}}
	for _, tc := range []struct {
		name  string
		lacks Lacks
		ex    trace.Exchange
		want  []string
	}{
		{"sent here", lacks, trace.Exchange{Path: left}, []string{"no process"}},
		{"sent here, its cgroup is known", lacks, trace.Exchange{Path: left, Client: &trace.Endpoint{Cgroup: "/a"}}, []string{"no process"}},
		{"from another node", lacks, trace.Exchange{Path: came}, nil},
		{"dropped", lacks, trace.Exchange{Path: came, Drop: &trace.Drop{Where: "nf_hook_slow"}}, []string{"no reason"}},
		{"the kernel tells", Lacks{}, trace.Exchange{Path: left, Drop: &trace.Drop{}}, nil},
		{"it told", lacks, trace.Exchange{Path: left, Client: &trace.Endpoint{PID: 7}, Drop: &trace.Drop{Reason: "NO_SOCKET"}}, nil},
	} {
		if got := tc.lacks.gaps(&tc.ex); !slices.Equal(got, tc.want) {
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
		cfg := Config{Lacks: Lacks{Unsampled: gap}}
		if name == "no sampling, a record" {
			cfg.Lacks.Unsampled = ""
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
