//go:build peers

package peers

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// application is a context that a client sends.
var application = trace.Traceparent{TraceID: trace.TraceID{0: 1, 15: 7}, SpanID: trace.SpanID{0: 1, 7: 9}, Flags: trace.FlagSampled}

// CoreDNS adopts the ids of dnsdist, which asks on behalf of clients with and without
// EDNS, over UDP and TCP; and no client gets an option that it did not send.
func TestDnsdistInFront(t *testing.T) {
	r := newRig(t)
	r.start(true, false)
	eachWay(t, r, "front", func(r *rig, name string) { r.adopts(name) })
	t.Run("with a client's option", func(t *testing.T) {
		checkExtended(t, r.ask("replaced.front.test.", "udp", application.Append(nil)...))
		if got := r.of(t).adopts("replaced.front.test."); got.TraceID == application.TraceID {
			t.Errorf("dnsdist sends %s", got)
		}
	})
	t.Run("with a client's option that dnsdist adopts", func(t *testing.T) {
		checkExtended(t, r.ask("www.adopted.test.", "udp", application.Append(nil)...))
		if got := r.of(t).adopts("www.adopted.test."); got.TraceID != application.TraceID || got.SpanID == application.SpanID {
			t.Errorf("dnsdist sends %s", got)
		}
		// It takes the id of the span above for that of its own.
		if root := r.exported(r.dnsdist, "www.adopted.test.").spans[0]; !bytes.Equal(root.SpanId, application.SpanID[:]) {
			t.Errorf("dnsdist's first span is %s %x", root.Name, root.SpanId)
		}
	})
	t.Run("with a client's option that dnsdist passes on", func(t *testing.T) {
		checkExtended(t, r.ask("www.passed.test.", "udp", application.Append(nil)...))
		if got := r.of(t).accepted("www.passed.test."); got != application {
			t.Errorf("CoreDNS got %s", got)
		}
		r.ask("later.front.test.", "udp")
		r.exported(r.dnsdist, "later.front.test.")
		if x := r.dnsdist.of("www.passed.test."); len(x) > 0 {
			t.Errorf("dnsdist exports %v", x)
		}
	})
}

// dnsdist never sets the flag that says that it records a lookup, so that `sample` of
// CoreDNS decides. Where it comes with the flag CoreDNS records it whatever `sample` says;
// and upstreams are told.
func TestDnsdistFlags(t *testing.T) {
	r := newRig(t)
	r.start(true, false)
	r.ask("traced.unsampled.test.", "udp", application.Append(nil)...)
	r.ask("www.passed.unsampled.test.", "udp", application.Append(nil)...)
	r.accepted("www.passed.unsampled.test.")
	if q := r.recorded("traced.unsampled.test."); len(q) > 0 {
		t.Errorf("CoreDNS recorded %v", q[0])
	}
	for name, want := range map[string]byte{"traced.unsampled.test.": 0, "www.passed.unsampled.test.": trace.FlagSampled} {
		in, _ := r.between(dnsdist, lab.CoreDNS, name)
		out, _ := r.between(lab.CoreDNS, lab.Upstream, name)
		if got, sent := r.traceparent(in), r.traceparent(out); got.Flags != want || sent.Flags != want || sent.TraceID != got.TraceID {
			t.Errorf("%s: dnsdist sends %s, CoreDNS %s", name, got, sent)
		}
	}
}

// checkExtended wants an answer with EDNS and without an option.
func checkExtended(t *testing.T, answer *dns.Msg) {
	t.Helper()
	if opt := answer.IsEdns0(); opt == nil || len(opt.Option) > 0 {
		t.Errorf("the client got\n%s", answer)
	}
}

// of is the rig for a part of its test.
func (r *rig) of(t *testing.T) *rig {
	part := *r
	part.t = t
	return &part
}

// adopts checks that CoreDNS adopted a span of dnsdist's that is not sampled, and returns
// what came.
func (r *rig) adopts(name string) trace.Traceparent {
	r.t.Helper()
	got := r.accepted(name)
	if got.Flags != 0 {
		r.t.Errorf("%s: dnsdist sends %s", name, got)
	}
	x := r.exported(r.dnsdist, name)
	if x.span(got) == nil {
		r.t.Errorf("%s: dnsdist sends %s and exports %v", name, got, x.spans)
	}
	return got
}

// accepted checks that what CoreDNS got with a name is what it recorded and passes on, that
// its answer has no option, and returns what came.
func (r *rig) accepted(name string) trace.Traceparent {
	r.t.Helper()
	query, response := r.between(dnsdist, lab.CoreDNS, name)
	got, q := r.traceparent(query), r.record(name)
	if q.TraceID != got.TraceID || q.ParentSpanID == nil || *q.ParentSpanID != got.SpanID {
		r.t.Errorf("%s: CoreDNS got %s and recorded %s below %v", name, got, q.TraceID, q.ParentSpanID)
	}
	if len(optionData(response)) > 0 {
		r.t.Errorf("CoreDNS answers\n%s", response)
	}
	r.stamped(lab.Upstream, q)
	return got
}

// stamped checks that the first attempt of a query went to a host with its own option, and
// that what came back has none.
func (r *rig) stamped(host string, q *trace.Query) trace.Traceparent {
	r.t.Helper()
	query, response := r.between(lab.CoreDNS, host, q.QName)
	want := attempt(q)
	if got := r.traceparent(query); got != want || !q.Stamped {
		r.t.Errorf("%s: CoreDNS sends %s, expected %s", q.QName, got, want)
	}
	if len(optionData(response)) > 0 {
		r.t.Errorf("%s answers\n%s", host, response)
	}
	return want
}

// traceparent is what the one option of a query says: all 27 bytes of it.
func (r *rig) traceparent(query *dns.Msg) trace.Traceparent {
	r.t.Helper()
	all := optionData(query)
	if len(all) != 1 {
		r.t.Fatalf("%d options in\n%s", len(all), query)
	}
	got, err := trace.ParseTraceparent(all[0])
	if err != nil || !bytes.Equal(got.Append(nil), all[0]) {
		r.t.Fatalf("an option with %x: %v", all[0], err)
	}
	return got
}
