package integration

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// lossLine is what the tracer says at its end.
var lossLine = regexp.MustCompile(`dnstrace: \d+ events, (\d+) lost`)

// The rings are too small for what comes while the tracer gets no processor time: no
// lookup is harmed, what was lost is counted, and no trace that lacks a packet is silent
// about it. When it goes on, lookups are whole again.
func TestRingsTooSmall(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer("--timeout", "1s", "--record", "trace")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "before.test."})
	if err := tracer.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Eighteen sightings each: some four times what two rings of 4 MiB hold.
	results := r.Client("client-b").Bulk(context.Background(), lab.Bulk{Count: 6000, Rate: 1500, Query: func(i int) lab.Query {
		return lab.Query{Name: fmt.Sprintf("stalled%d.test.", i), RetransmitAfter: time.Second}
	}})
	if err := tracer.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	unharmed(t, results)
	r.recordedAgain("again")
	if err := tracer.Stop(); err != nil {
		t.Fatal(err)
	}
	said := lossLine.FindStringSubmatch(tracer.Stderr())
	if said == nil {
		t.Fatalf("it says nothing of losses:\n%s", tracer.Stderr())
	}
	if lost, err := strconv.Atoi(said[1]); err != nil || lost == 0 {
		t.Errorf("%s lost, %v: the rings were large enough", said[1], err)
	}
	asked := map[string]bool{}
	for _, res := range results {
		asked[res.Name] = true
	}
	whole, partly := 0, 0
	eachTrace(t, r.RecordFile(), func(tr *trace.Trace) {
		switch {
		case !asked[tr.QName]:
		case wholeAndRight(t, tr) && tr.Outcome == trace.OutcomeAnswered:
			whole++
		case len(tr.Gaps) > 0, tr.Exchange != nil && tr.Exchange.LostEvents > 0:
			partly++
		default:
			t.Errorf("packets are missing without a word: %s", tr.AppendJSON(nil))
		}
	})
	t.Logf("%d lookups; %d traces whole, %d that say what they lack; %s events lost", len(results), whole, partly, said[1])
}
