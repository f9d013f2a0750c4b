package integration

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Two CoreDNS in a row, as a node-local cache and the cluster's: one tree under
// one trace id, though the servers never talked but in DNS; and fifty clients
// that ask one name at once, each with its own upstream exchange.
func TestChainWithStamping(t *testing.T) {
	r := tracerOnly(t)
	front, back := r.Host("client-b"), r.Host(lab.CoreDNS)
	for host, corefile := range map[string]string{
		"client-b": fmt.Sprintf(". {\n dnstrace {\n output unix %s\n stamp all\n }\n forward . %s\n}\n", r.RecordSocket(), back.V4),
		lab.CoreDNS: fmt.Sprintf(". {\n dnstrace {\n output unix %s\n accept %s\n stamp all\n }\n forward . %s\n}\n",
			r.RecordSocket(), lab.PodNetV4, r.Upstream(0).V4()),
	} {
		if _, err := r.StartCoreDNSOn(host, corefile); err != nil {
			t.Fatal(err)
		}
	}
	ask := lab.Query{Name: "chain.test.", Server: netip.AddrPortFrom(front.V4, 53)}
	r.answered(ask)
	checkChain(t, r.trace("chain.test."))

	const clients = 50
	ask.Name = "same.test."
	for i, res := range r.Client("client-a").Bulk(context.Background(), lab.Bulk{
		Count: clients, Rate: 1e6, Query: func(int) lab.Query { return ask },
	}) {
		if res.Err != nil {
			t.Fatalf("client %d: %v", i, res.Err)
		}
	}
	ids := map[string]bool{}
	for _, tr := range r.traces("same.test.", clients) {
		checkChain(t, tr)
		ids[tr.TraceID.String()] = true
	}
	if len(ids) != clients {
		t.Errorf("%d trace ids, expected %d", len(ids), clients)
	}
}

func checkChain(t *testing.T, tr *trace.Trace) {
	t.Helper()
	if tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Query == nil || len(tr.Upstreams[0].Upstreams) != 1 {
		t.Fatalf("no chain: %+v; gaps %v", tr.Upstreams, tr.Gaps)
	}
	outer, inner := tr.Upstreams[0], tr.Upstreams[0].Upstreams[0]
	if outer.Join != trace.JoinExact || inner.Join != trace.JoinExact || inner.Exchange == nil {
		t.Errorf("joins %s and %s; gaps %v", outer.Join, inner.Join, tr.Gaps)
	}
	if !trace.SameLookup(tr.TraceID, tr.Query.TraceID) || outer.Query.TraceID != tr.Query.TraceID {
		t.Errorf("trace ids %s, %s and %s", tr.TraceID, tr.Query.TraceID, outer.Query.TraceID)
	}
	attempt := trace.NewSpanID(tr.Query.TraceID, tr.Query.SpanID, trace.RoleAttempt, 1)
	if outer.Query.ParentSpanID == nil || *outer.Query.ParentSpanID != attempt {
		t.Errorf("the second server's parent is %v, expected the first one's attempt %s", outer.Query.ParentSpanID, attempt)
	}
	// The way between them shows the context in the packet.
	for _, ex := range []*trace.Exchange{outer.Exchange, inner.Exchange} {
		if ex.Traceparent == "" || ex.Traceparent[3:35] != tr.Query.TraceID.String() {
			t.Errorf("TRACEPARENT %q on the wire, trace %s", ex.Traceparent, tr.Query.TraceID)
		}
	}
	if len(tr.Diagnosis) != 0 {
		t.Errorf("findings %v", findings(tr))
	}
}
