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
