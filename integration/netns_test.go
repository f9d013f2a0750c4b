package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Of two nodes' lookups only those of the one chosen pod are in the records, as that
// pod saw them; also when the pod was deleted and made again.
func TestOnlyTheChosenNamespace(t *testing.T) {
	other, r := &rig{lab.New(t, lab.Config{}), t}, &rig{lab.New(t, lab.Config{}), t}
	pod := r.Host("client-a").Netns
	if _, err := r.StartTracer("--netns", pod); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*rig{other, r} {
		if _, err := l.StartCoreDNS(corefile(l.Lab, "")); err != nil {
			t.Fatal(err)
		}
	}
	other.answered(lab.Query{Name: "other.first.test."})
	r.answered(lab.Query{Name: "first.test."})
	r.trace("first.test.")

	if err := r.RemovePod("client-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddPod("client-a"); err != nil {
		t.Fatal(err)
	}
	// The tracer looks where the name leads between two rounds of packets.
	r.askUntilSeen("again.test.")
	other.answered(lab.Query{Name: "other.last.test."})
	r.answered(lab.Query{Name: "last.test."})
	r.trace("last.test.")

	for _, rec := range r.records() {
		ex, ok := rec.(*trace.Exchange)
		if !ok {
			continue
		}
		if strings.HasPrefix(ex.QName, "other.") {
			t.Errorf("%s is in the records", ex.QName)
		}
		const both = 4 // out of eth0, and back in, into the socket, and read
		if ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != both || ex.ServerIP != lab.ServiceV4.Addr() {
			t.Errorf("%s: %+v", ex.QName, ex)
		}
		for _, s := range ex.Path.All() {
			if s.NetNSName != pod {
				t.Errorf("%s: seen in %s", ex.QName, s.NetNSName)
			}
		}
	}
}

// askUntilSeen repeats a lookup until it is in the records.
func (r *rig) askUntilSeen(name string) {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		r.answered(lab.Query{Name: name})
		if slices.ContainsFunc(r.records(), func(rec trace.Record) bool {
			ex, ok := rec.(*trace.Exchange)
			return ok && ex.QName == name
		}) {
			return
		}
	}
	r.t.Fatalf("%s is not in the records\n%s", name, r.Outputs())
}
