package otlp

import (
	"hash/crc32"

	"github.com/dnstrace/dnstrace/trace"
)

// Roles of spans that only this package makes.
const (
	roleRefresh  = "refresh"  // background work; its first attempt's number is the index
	roleObserved = "observed" // a node on the way; its name makes the index
	roleRepeat   = "repeat"   // an attempt for a retransmission; its place is the index
)

// adopted returns the span of another that CoreDNS took for its query's parent:
// zero where the parent is the client span, or there is no query.
func adopted(q *trace.Query) trace.SpanID {
	if q != nil && q.ParentSpanID != nil && *q.ParentSpanID != trace.NewSpanID(q.TraceID, trace.SpanID{}, trace.RoleClient, 0) {
		return *q.ParentSpanID
	}
	return trace.SpanID{}
}

func clientSpan(t *trace.Trace) trace.SpanID {
	return trace.NewSpanID(t.TraceID, adopted(t.Query), trace.RoleClient, 0)
}

// observedSpan names what a node saw of a lookup.
func observedSpan(t *trace.Trace, node string) trace.SpanID {
	return trace.NewSpanID(t.TraceID, clientSpan(t), roleObserved, int(crc32.ChecksumIEEE([]byte(node))))
}

// refreshSpan returns the span of work in the background, and its parent, the server span:
// zero where the trace id was adopted, because the record does not have its span.
func refreshSpan(t *trace.Trace) (id, parent trace.SpanID) {
	if t.TraceID.Flow() == t.Flow {
		parent = trace.NewSpanID(t.TraceID, clientSpan(t), trace.RoleServer, 0)
	}
	first := 0
	if len(t.Upstreams) > 0 && t.Upstreams[0].Attempt != nil {
		first = t.Upstreams[0].Attempt.Attempt
	}
	return trace.NewSpanID(t.TraceID, parent, roleRefresh, first), parent
}

// topSpan names the span of a trace that a reader should see first: the client's,
// though another node may send it.
func topSpan(t *trace.Trace) trace.SpanID {
	switch {
	case t.Exchange != nil && seenAtClient(t.Exchange):
		return clientSpan(t)
	case t.Query != nil:
		return t.Query.SpanID
	case t.Exchange == nil:
		id, _ := refreshSpan(t)
		return id
	}
	return clientSpan(t)
}

// seenAtClient tells whether an exchange was seen where the client is, or its query
// was dropped there before it had a device.
func seenAtClient(e *trace.Exchange) bool {
	if e.Path.Len() > 0 {
		return e.AtClient()
	}
	return len(e.Drops) > 0 && e.Drops[0].Message == trace.MessageQuery && e.Drops[0].IfName == ""
}
