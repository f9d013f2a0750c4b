//go:build peers

package peers

import (
	"encoding/hex"
	"slices"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/spanstore"
	"github.com/dnstrace/dnstrace/trace"
)

// A lookup that goes through dnsdist, CoreDNS and the recursor is one tree in a real
// Jaeger: CoreDNS and its attempt come from the tracer, which sees all packets, the rest
// from the peers.
func TestOneTree(t *testing.T) {
	r := newRig(t)
	jaeger := spanstore.StartJaeger(t, r.Lab)
	flags := []string{"--output", "otlp:" + jaeger.OTLP + "/v1/traces"}
	for _, host := range []string{client, dnsdist, lab.CoreDNS, recursor, lab.Upstream, lab.Node} {
		flags = append(flags, "--netns", r.Host(host).Netns)
	}
	if _, err := r.StartTracer(flags...); err != nil {
		t.Fatal(err)
	}
	r.start(true, true)
	const name = "www.tree.test."
	checkExtended(t, r.ask(name, "udp"))
	q, front, back := r.record(name), r.exported(r.dnsdist, name), r.exported(r.recursor, name)
	for _, x := range []export{front, back} {
		// As a collector of PowerDNS's protocol buffers would.
		if err := jaeger.Send("application/x-protobuf", x.request); err != nil {
			t.Fatal(err)
		}
	}
	// Of the tracer: CoreDNS, its attempt, and what the recursor asked.
	all := jaeger.Spans(t, q.TraceID, len(front.spans)+len(back.spans)+3)

	query, _ := r.between(dnsdist, lab.CoreDNS, name)
	above, attempted := front.span(r.traceparent(query)), attempt(q)
	asked := trace.NewSpanID(q.TraceID, attempted.SpanID, trace.RoleAttempt, 1)
	for _, want := range []struct{ id, parent, operation, service string }{
		{idOf(above), hex.EncodeToString(above.ParentSpanId), above.Name, "dnsdist"},
		{q.SpanID.String(), idOf(above), "coredns A", "dnstrace"},
		{attempted.SpanID.String(), q.SpanID.String(), "upstream A", "dnstrace"},
		{idOf(back.below(attempted)), attempted.SpanID.String(), "RecRequest", "rec"},
		{asked.String(), attempted.SpanID.String(), "upstream A", "dnstrace"},
	} {
		s := all[want.id]
		if s.OperationName != want.operation || s.Parent() != want.parent || s.Process.Get("service.name") != want.service {
			t.Errorf("span %s is %+v, expected %+v", want.id, s, want)
		}
	}
	// What dnsdist does with the answer has nothing above it.
	var tops []string
	for _, s := range all {
		if _, known := all[s.Parent()]; !known {
			tops = append(tops, s.OperationName)
		}
	}
	slices.Sort(tops)
	if !slices.Equal(tops, []string{"processResponse", "processUDPQuery"}) {
		t.Errorf("at the top are %v", tops)
	}
}

// idOf is the id of an exported span as Jaeger gives it, empty of none.
func idOf(s *tracepb.Span) string { return hex.EncodeToString(s.GetSpanId()) }
