package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Somebody on the node who knows the client's port, ID and question answers before
// the server does. The client does not take it, and neither does the trace.
func TestSpoofedResponse(t *testing.T) {
	h := newHostileRig(t)
	for i := range 2 {
		h.Upstream(i).Set("spoofed.test.", lab.Behaviour{Delay: 300 * time.Millisecond})
	}
	const port, id = 45454, 4711
	client := h.Host("client-a")
	forged := new(dns.Msg).SetQuestion("spoofed.test.", dns.TypeA)
	forged.Id = id
	forged.SetRcode(forged, dns.RcodeNameError)
	bare := &dns.Msg{MsgHdr: dns.MsgHdr{Id: id, Response: true, Rcode: dns.RcodeRefused}}
	stopped := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() {
		defer close(stopped)
		for _, m := range [][]byte{packed(t, forged), packed(t, bare)} {
			h.raw(ipv4{src: h.host.V4, dst: client.V4, protocol: 17}.packet(udpHeader(53, port, m)))
		}
	})
	res := h.answered(lab.Query{Name: "spoofed.test.", LocalPort: port, ID: id})
	<-stopped
	tr := h.trace("spoofed.test.")
	if res.Rcode() != dns.RcodeSuccess || tr.RCode != "NOERROR" || tr.Outcome != trace.OutcomeAnswered || tr.Exchange.LastDrop() != nil {
		t.Errorf("the client saw %d; the trace says %s %s, drop %+v", res.Rcode(), tr.Outcome, tr.RCode, tr.Exchange.LastDrop())
	}
	if tr.Duration == nil || tr.Duration.Duration() < 300*time.Millisecond {
		t.Errorf("answered after %v, before the server had answered", tr.Duration)
	}
	for _, s := range tr.Exchange.Path.All() {
		if s.Src.Addr() == h.host.V4 {
			t.Errorf("a packet of the attacker is taken for the server's: %+v", s)
		}
	}
	h.unharmed(t)
}

// Whoever puts another's trace id into a query does not become a part of that
// trace, nor does the server hand it on or back; CoreDNS accepts it from nobody
// unless told to.
func TestForgedTraceparent(t *testing.T) {
	h := newHostileRig(t)
	h.answered(lab.Query{Name: "victim.test."})
	victim := h.trace("victim.test.")
	for name, options := range forgedOptions(victim.TraceID, victim.Query.SpanID) {
		t.Run(name, func(t *testing.T) {
			// Where others on the machine fill the rings, once more.
			for i, end := 0, time.Now().Add(patience); time.Now().Before(end); i++ {
				if h.forge(t, victim, fmt.Sprintf("%d.%s", i, name), options) {
					return
				}
			}
			t.Error("never traced in whole")
		})
	}
	if all := h.traces("victim.test.", 1); len(all) != 1 || len(all[0].Upstreams) != 1 {
		t.Errorf("the victim has %d traces", len(all))
	}
	h.unharmed(t)
}

// forge asks with the options, and wants a trace that has nothing to do with the
// victim's; false where packets of it were lost or left out, and it says so.
func (h *hostileRig) forge(t *testing.T, victim *trace.Trace, name string, options [][]byte) (whole bool) {
	t.Helper()
	res, err := h.Client("client-b").Exchange(t.Context(), lab.Query{Message: withOptions(name, options)})
	if err != nil {
		t.Fatal(err)
	}
	if opt := res.Answer.IsEdns0(); opt != nil && len(opt.Option) > 0 {
		t.Errorf("the answer has options: %v", opt)
	}
	tr := h.trace(name)
	if tr.TraceID == victim.TraceID {
		t.Errorf("%s: the victim's trace: %+v", name, tr)
	}
	if q := tr.Query; q != nil && (q.TraceID == victim.TraceID || q.ParentSpanID != nil && *q.ParentSpanID == victim.Query.SpanID) {
		t.Errorf("%s: CoreDNS took the forged context: %+v", name, q)
	}
	switch {
	case tr.Query == nil, tr.Exchange == nil, tr.Exchange.LostEvents > 0, len(tr.Upstreams) == 1 && tr.Upstreams[0].Exchange == nil:
		if len(tr.Gaps) == 0 && (tr.Exchange == nil || tr.Exchange.LostEvents == 0) {
			t.Errorf("%s: parts are missing without a word: %+v", name, tr)
		}
		return false
	case tr.TraceID != trace.NewTraceID(tr.Exchange.Time, tr.Exchange.Flow) || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact:
		t.Errorf("%s: trace %s of flow %s, upstreams %+v, gaps %v", name, tr.TraceID, tr.Exchange.Flow, tr.Upstreams, tr.Gaps)
	}
	return true
}

// Segments of any cut carry the same messages: each is answered, and traced once.
func TestHostileSegments(t *testing.T) {
	h := newHostileRig(t)
	names := func(prefix string) (messages []byte, all []string) {
		for _, n := range []string{"one.", "two.", "three."} {
			name := n + prefix + ".test."
			messages = append(messages, framed(question(t, name, uint16(len(all)+1)))...)
			all = append(all, name)
		}
		return messages, all
	}
	for _, tc := range []struct {
		name string
		cut  func(b []byte) [][]byte
	}{
		{"together", func(b []byte) [][]byte { return [][]byte{b} }},
		{"lengthsplit", func(b []byte) [][]byte { return [][]byte{b[:1], b[1:2], b[2:]} }},
		{"bytewise", func(b []byte) [][]byte {
			var pieces [][]byte
			for i := range b {
				pieces = append(pieces, b[i:i+1])
			}
			return pieces
		}},
		{"acrossmessages", func(b []byte) [][]byte { return [][]byte{b[:len(b)/2], b[len(b)/2 : len(b)-1], b[len(b)-1:]} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Where others on the machine fill the rings, once more.
			for i, end := 0, time.Now().Add(patience); time.Now().Before(end); i++ {
				messages, all := names(fmt.Sprintf("%s%d", tc.name, i))
				pieces, before := tc.cut(messages), h.transmitted(t)
				if got := h.stream(pieces...); len(got) == 0 {
					t.Error("no answer")
				}
				if left := h.transmitted(t) - before; left < len(pieces) {
					t.Errorf("%d pieces in %d segments: the kernel put some together", len(pieces), left)
				}
				if h.tracedOverTCP(t, all) {
					return
				}
			}
			t.Error("never traced in whole")
		})
	}
	h.unharmed(t)
}

// tracedOverTCP wants each name to be traced as answered; false where packets of one
// were lost, and its trace says so.
func (h *hostileRig) tracedOverTCP(t *testing.T, names []string) (whole bool) {
	t.Helper()
	whole = true
	for _, name := range names {
		tr := h.trace(name)
		switch {
		case tr.Exchange == nil && len(tr.Gaps) > 0, tr.Exchange != nil && tr.Exchange.LostEvents > 0:
			whole = false
		case tr.Outcome != trace.OutcomeAnswered || tr.RCode != "NOERROR" || tr.Query == nil || tr.Exchange == nil || tr.Exchange.Protocol != "tcp":
			t.Errorf("%s: %s %s, query %t, exchange %t, gaps %v", name, tr.Outcome, tr.RCode, tr.Query != nil, tr.Exchange != nil, tr.Gaps)
		}
	}
	return whole
}
