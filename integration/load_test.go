package integration

import (
	"context"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A thousand lookups with unique names at 500 a second: a thousand traces, every
// one complete, none joined wrongly. The name is the truth.
func TestThousandLookups(t *testing.T) {
	const count = 1000
	r := newRig(t)
	results := r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: count, Rate: 500})
	sent := map[string]lab.Result{}
	for _, res := range results {
		if res.Err != nil {
			t.Fatalf("%s: %v", res.Name, res.Err)
		}
		sent[res.Name] = res
	}
	upstream := map[string]lab.Received{}
	for i := range 2 {
		for _, got := range r.Upstream(i).Received() {
			upstream[got.Name] = got
		}
	}

	traces := r.bulkTraces(sent, count)
	if len(traces) != count {
		t.Fatalf("%d traces, expected %d", len(traces), count)
	}
	seen := map[string]bool{}
	for _, tr := range traces {
		if seen[tr.QName] {
			t.Errorf("%s has two traces", tr.QName)
		}
		seen[tr.QName] = true
		checkComplete(t, r, tr, sent[tr.QName])
		checkNames(t, tr, upstream[tr.QName])
	}
}

// bulkTraces waits for the traces of all lookups, and for more that should not
// be.
func (r *rig) bulkTraces(sent map[string]lab.Result, count int) []*trace.Trace {
	r.t.Helper()
	var found []*trace.Trace
	complete := time.Time{}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		found = found[:0]
		for _, rec := range r.records() {
			if t, ok := rec.(*trace.Trace); ok {
				if _, ours := sent[t.QName]; ours {
					found = append(found, t)
				}
			}
		}
		switch {
		case len(found) < count:
		case complete.IsZero():
			complete = time.Now()
		case time.Since(complete) > 2*time.Second:
			return found
		}
	}
	return found
}

// checkNames wants every part of a trace to be of the same lookup, and its
// upstream exchange to be the one that the upstream got for it.
func checkNames(t *testing.T, tr *trace.Trace, got lab.Received) {
	t.Helper()
	if tr.Exchange.QName != tr.QName || tr.Query.QName != tr.QName {
		t.Errorf("%s is joined with %s and %s", tr.QName, tr.Exchange.QName, tr.Query.QName)
	}
	if len(tr.Upstreams) != 1 {
		t.Errorf("%s: %d upstreams; gaps %v", tr.QName, len(tr.Upstreams), tr.Gaps)
		return
	}
	u := tr.Upstreams[0]
	if u.Join != trace.JoinExact || u.Exchange == nil || u.Exchange.QName != tr.QName ||
		u.Exchange.ID != got.ID || u.Exchange.ClientPort != got.Client.Port() || got.Name != dns.CanonicalName(tr.QName) {
		t.Errorf("%s: upstream %+v; gaps %v", tr.QName, u, tr.Gaps)
	}
	if len(tr.Diagnosis) != 0 {
		t.Errorf("%s: findings %v", tr.QName, findings(tr))
	}
}
