package otlp

import (
	"bytes"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// A copy shares nothing with the record that spans are made of.
func TestCloneIsACopy(t *testing.T) {
	for _, name := range []string{"silent-upstream", "tracer-alone"} {
		tr := one(t, name)
		c := cloneTrace(tr)
		before := drawSpans(resourceSpans(testIdentity(t), []*trace.Trace{c}))
		spoil(tr)
		if after := drawSpans(resourceSpans(testIdentity(t), []*trace.Trace{c})); !bytes.Equal(before, after) {
			t.Errorf("%s: changed with the record:\n%s\nbefore:\n%s", name, after, before)
		}
	}
}

func spoil(tr *trace.Trace) {
	spoilExchange(tr.Exchange)
	spoilQuery(tr.Query)
	spoilUpstreams(tr.Upstreams)
	for i := range tr.Diagnosis {
		tr.Diagnosis[i].Evidence[0] = ""
		tr.Diagnosis[i] = trace.Finding{}
	}
	for i := range tr.Gaps {
		tr.Gaps[i] = ""
	}
}

func spoilExchange(e *trace.Exchange) {
	if e == nil {
		return
	}
	e.Path.Reset()
	e.Path.Append(trace.Sighting{Message: trace.MessageResponse, Direction: trace.DirectionRX})
	clear(e.Drops)
	clear(e.Rejected)
	clear(e.Answers)
	if e.NAT != nil {
		*e.NAT.ServerPort = 1
		*e.NAT = trace.NAT{}
	}
	for _, p := range []*trace.Endpoint{e.Client, e.Server} {
		if p != nil {
			*p = trace.Endpoint{}
		}
	}
	if e.Duration != nil {
		*e.Duration = 1
	}
	if e.AnswerCount != nil {
		*e.AnswerCount, *e.ResponseSize = 99, 99
	}
	if e.MinTTL != nil {
		*e.MinTTL = 99
	}
}

func spoilQuery(q *trace.Query) {
	if q == nil {
		return
	}
	*q.ParentSpanID, *q.Duration = trace.SpanID{}, 1
	for i := range q.Hops {
		*q.Hops[i].Duration = 1
	}
	clear(q.Hops)
}

func spoilUpstreams(list []trace.Upstream) {
	for i := range list {
		spoilExchange(list[i].Exchange)
		spoilQuery(list[i].Query)
		if at := list[i].Attempt; at != nil {
			*at.Duration = 1
			*at = trace.Attempt{}
		}
		spoilUpstreams(list[i].Upstreams)
	}
}
