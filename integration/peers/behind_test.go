//go:build peers

package peers

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// The recursor puts its spans below the attempt of CoreDNS, over UDP and TCP, for clients
// with and without EDNS, and out of its cache too. It passes nothing on and sends nothing back.
func TestRecursorBehind(t *testing.T) {
	r := newRig(t)
	r.start(false, true)
	eachWay(t, r, "behind", func(r *rig, name string) { r.below(name) })
	t.Run("from its cache", func(t *testing.T) {
		const name = "udp.behind.test."
		first := r.record(name)
		r.ask(name, "udp")
		r.wait("second record", func() bool { return len(r.recorded(name)) == 2 })
		second := r.recorded(name)[1]
		r.wait("second export", func() bool { return len(r.recursor.of(name)) == 2 })
		if got := r.recursor.of(name)[1]; second.TraceID == first.TraceID || got.below(attempt(second)) == nil {
			t.Errorf("below %s the recursor exports %v", attempt(second), got.spans)
		}
		if n := len(r.Upstream(0).Received(name)); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}

// The recursor does not look at the flags: it exports what is not sampled as well.
func TestRecursorFlags(t *testing.T) {
	r := newRig(t)
	r.start(false, true)
	const name = "www.unsampled.test."
	r.ask(name, "udp")
	query, _ := r.between(lab.CoreDNS, recursor, name)
	sent := r.traceparent(query)
	if sent.Flags != 0 {
		t.Errorf("CoreDNS sends %s", sent)
	}
	if x := r.exported(r.recursor, name); x.below(sent) == nil {
		t.Errorf("below %s the recursor exports %v", sent, x.spans)
	}
	if q := r.recorded(name); len(q) > 0 {
		t.Errorf("CoreDNS recorded %v", q[0])
	}
}

// The recursor takes no shorter form of the option than the 27 bytes that the plugin sends:
// it begins a trace of its own.
func TestRecursorLengths(t *testing.T) {
	r := newRig(t)
	r.start(false, true)
	r.server = netip.AddrPortFrom(r.Host(recursor).V4, 53)
	for length, adopted := range map[int]bool{18: false, 26: false, 27: true} {
		name := fmt.Sprintf("bytes%d.test.", length)
		r.ask(name, "udp", application.Append(nil)[:length]...)
		if root := r.exported(r.recursor, name).spans[0]; bytes.Equal(root.TraceId, application.TraceID[:]) != adopted {
			t.Errorf("with %d bytes the recursor exports %x below %x", length, root.TraceId, root.ParentSpanId)
		}
	}
}

// below checks that the recursor got the option of CoreDNS's attempt and exports a span
// below that, and that the option ends there.
func (r *rig) below(name string) {
	r.t.Helper()
	sent := r.stamped(recursor, r.record(name))
	if x := r.exported(r.recursor, name); x.below(sent) == nil {
		r.t.Errorf("%s: below %s the recursor exports %v", name, sent, x.spans)
	}
	for _, got := range r.Upstream(0).Received(name) {
		for _, o := range got.Options {
			if o.Option() == trace.DefaultOptionCode {
				r.t.Errorf("%s: the upstream got %v", name, got.Options)
			}
		}
	}
}

// attempt is what CoreDNS sends with the first attempt of a query that it records.
func attempt(q *trace.Query) trace.Traceparent {
	return trace.Traceparent{TraceID: q.TraceID, SpanID: trace.NewSpanID(q.TraceID, q.SpanID, trace.RoleAttempt, 1), Flags: trace.FlagSampled}
}
