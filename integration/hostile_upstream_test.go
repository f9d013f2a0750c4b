package integration

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// slowUpstream is how long the upstream takes, so that somebody can be faster.
const slowUpstream = 300 * time.Millisecond

// victim looks up a name of which the upstream takes its time, and lets the attacker
// act as soon as CoreDNS's query for it is there: he knows all of it.
func (h *hostileRig) victim(t *testing.T, name string, attack func(query lab.Received)) (tr *trace.Trace, query lab.Received) {
	t.Helper()
	h.Upstream(0).Set(name, lab.Behaviour{Delay: slowUpstream})
	attacked := make(chan struct{})
	go func() {
		defer close(attacked)
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if got := h.Upstream(0).Received(name); len(got) > 0 {
				query = got[0]
				attack(query)
				return
			}
		}
	}()
	h.answered(lab.Query{Name: name})
	<-attacked
	if query.ID == 0 {
		t.Fatal("CoreDNS did not ask its upstream")
	}
	return h.trace(name), query
}

// trueLeg wants the upstream query of a trace to be the one that CoreDNS sent.
func trueLeg(t *testing.T, tr *trace.Trace, query lab.Received) *trace.Exchange {
	t.Helper()
	if len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil || tr.Upstreams[0].Join != trace.JoinExact {
		t.Fatalf("upstreams %+v, gaps %v", tr.Upstreams, tr.Gaps)
	}
	ex := tr.Upstreams[0].Exchange
	if ex.ID != query.ID || netip.AddrPortFrom(ex.ClientIP, ex.ClientPort) != query.Client {
		t.Errorf("joined with ID %d from %s:%d; CoreDNS sent ID %d from %s", ex.ID, ex.ClientIP, ex.ClientPort, query.ID, query.Client)
	}
	return ex
}

// Whoever sends a query to the upstream with CoreDNS's address, the name that it asks
// for at the time, and the stamp that it put there, does not become its upstream leg.
func TestForgedUpstreamQuery(t *testing.T) {
	h := newHostileRig(t, "stamp all")
	tr, query := h.victim(t, "stolen.test.", func(query lab.Received) {
		forged := new(dns.Msg).SetQuestion("stolen.test.", dns.TypeA)
		forged.Id = query.ID + 1
		forged.SetEdns0(1232, false)
		forged.IsEdns0().Option = query.Options
		for port := range uint16(20) {
			h.raw(ipv4{src: query.Client.Addr(), dst: query.Server.Addr(), protocol: 17}.packet(udpHeader(20000+port, 53, packed(t, forged))))
		}
	})
	trueLeg(t, tr, query)
	if !tr.Query.Stamped || len(query.Options) == 0 {
		t.Errorf("stamped %t, options %v: there was nothing to steal", tr.Query.Stamped, query.Options)
	}
	if n := len(h.Upstream(0).Received("stolen.test.")); n < 2 {
		t.Errorf("the upstream got %d queries: no forged one came", n)
	}
	h.unharmed(t)
	for _, rec := range h.records() {
		if other, ok := rec.(*trace.Trace); ok && other.TraceID == tr.TraceID && other.Flow != tr.Flow {
			t.Errorf("a trace of %s:%d has the victim's id", other.Exchange.ClientIP, other.Exchange.ClientPort)
		}
	}
}

// Whoever answers CoreDNS before its upstream does, with the right port, ID and
// question, but from an address of his own, changes neither the answer nor the trace.
func TestForgedUpstreamResponse(t *testing.T) {
	h := newHostileRig(t)
	tr, query := h.victim(t, "early.test.", func(query lab.Received) {
		forged := new(dns.Msg).SetQuestion("early.test.", dns.TypeA)
		forged.Id = query.ID
		forged.SetRcode(forged, dns.RcodeNameError)
		h.raw(ipv4{src: h.host.V4, dst: query.Client.Addr(), protocol: 17}.packet(udpHeader(53, query.Client.Port(), packed(t, forged))))
	})
	leg := trueLeg(t, tr, query)
	if h.sent == 0 {
		t.Error("nothing was forged")
	}
	if tr.RCode != "NOERROR" || leg.RCode != "NOERROR" || leg.Duration == nil || leg.Duration.Duration() < slowUpstream {
		t.Errorf("the trace says %s, its upstream leg %s after %v", tr.RCode, leg.RCode, leg.Duration)
	}
	for _, s := range leg.Path.All() {
		if s.Src.Addr() == h.host.V4 {
			t.Errorf("a packet of the attacker is taken for the upstream's: %+v", s)
		}
	}
	h.unharmed(t)
}
