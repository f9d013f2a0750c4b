package otlp

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// cloneTrace returns a copy of what spans are made of: the pipeline may reuse a record. It
// takes a thirtieth of the time of making the spans, which must not happen on the packet
// path.
func cloneTrace(t *trace.Trace) *trace.Trace {
	c := *t
	c.Duration, c.ClockOffset, c.Sample = clone(t.Duration), clone(t.ClockOffset), clone(t.Sample)
	c.Client, c.Server = clone(t.Client), clone(t.Server)
	c.Exchange, c.Query = cloneExchange(t.Exchange), cloneQuery(t.Query)
	c.Upstreams = cloneUpstreams(t.Upstreams)
	c.Gaps = slices.Clone(t.Gaps)
	c.Diagnosis = slices.Clone(t.Diagnosis)
	for i := range c.Diagnosis {
		c.Diagnosis[i].Evidence = slices.Clone(c.Diagnosis[i].Evidence)
	}
	return &c
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func cloneExchange(e *trace.Exchange) *trace.Exchange {
	if e == nil {
		return nil
	}
	c := e.Clone()
	c.Duration, c.ResponseSize = clone(e.Duration), clone(e.ResponseSize)
	c.AnswerCount, c.MinTTL = clone(e.AnswerCount), clone(e.MinTTL)
	c.Client, c.Server = clone(e.Client), clone(e.Server)
	c.Reset, c.ICMP, c.ExtendedError = clone(e.Reset), clone(e.ICMP), clone(e.ExtendedError)
	c.Answers = slices.Clone(e.Answers)
	if c.NAT = clone(e.NAT); c.NAT != nil {
		c.NAT.ServerPort, c.NAT.ClientPort = clone(e.NAT.ServerPort), clone(e.NAT.ClientPort)
		c.NAT.Endpoint = clone(e.NAT.Endpoint)
	}
	return c
}

func cloneQuery(q *trace.Query) *trace.Query {
	if q == nil {
		return nil
	}
	c := *q
	c.Duration, c.ResponseSize = clone(q.Duration), clone(q.ResponseSize)
	c.ParentSpanID = clone(q.ParentSpanID)
	c.Hops = slices.Clone(q.Hops)
	for i := range c.Hops {
		c.Hops[i].Duration = clone(c.Hops[i].Duration)
	}
	return &c
}

func cloneUpstreams(list []trace.Upstream) []trace.Upstream {
	c := slices.Clone(list)
	for i := range c {
		u := &c[i]
		if u.Attempt = clone(u.Attempt); u.Attempt != nil {
			u.Attempt.Duration = clone(u.Attempt.Duration)
		}
		u.Earlier = slices.Clone(u.Earlier)
		for j, ex := range u.Earlier {
			u.Earlier[j] = cloneExchange(ex)
		}
		u.Exchange, u.Query = cloneExchange(u.Exchange), cloneQuery(u.Query)
		u.Upstreams = cloneUpstreams(u.Upstreams)
	}
	return c
}
