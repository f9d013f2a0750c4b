package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// The node tracks as many connections as it may: a client's new query is not let
// through, and the finding says how full the table is.
func TestDiagnoseConntrackFull(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "2s")
	r.answered(lab.Query{Name: "before.test."})
	undo, err := r.FillConntrack()
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "full.test.", Timeout: time.Second})
	tr := r.finds("full.test.", "conntrack-full", "NETFILTER_DROP", "nf_hook_slow", r.Host(lab.Node).Netns, "record")
	d := tr.Exchange.LastDrop()
	if tr.Outcome != trace.OutcomeDropped || d.ConntrackMax == 0 || d.ConntrackCount < d.ConntrackMax {
		t.Errorf("outcome %s, drop %+v", tr.Outcome, d)
	}
	r.keep("conntrack-full", "full.test")

	// A rule that drops it before it is tracked is the cause, however full the table.
	drop := func() (undo func()) {
		undo, err := r.DropAt(lab.NodeRawPrerouting, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
		if err != nil {
			t.Fatal(err)
		}
		return undo
	}
	allow := drop()
	r.ask(lab.Query{Name: "ruled.test.", Timeout: time.Second})
	allow()
	undo()
	r.answered(lab.Query{Name: "after.test."})
	drop()
	r.ask(lab.Query{Name: "ruled.test.", Timeout: time.Second})
	for _, tr := range r.spares("conntrack-full", "ruled.test.", 2) {
		if !slices.Contains(findings(tr), "dropped-by-netfilter") {
			t.Errorf("findings %v", findings(tr))
		}
	}
	r.keep("conntrack-full-not", "ruled.test")
}
