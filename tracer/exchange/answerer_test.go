package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A response with the right port, ID and question that comes from where the client
// did not ask is nobody's: not before the true one, not in its place, and not where
// it is dropped.
func TestResponseFromElsewhere(t *testing.T) {
	attacker := netip.MustParseAddrPort("10.244.0.66:53")
	q, r := query(t, "bank.example.", 7), response(t, "bank.example.", 7, dns.RcodeSuccess)
	forged := response(t, "bank.example.", 7, dns.RcodeNameError)
	bare := new(dns.Msg)
	bare.Id, bare.Response, bare.Rcode = 7, true, dns.RcodeRefused
	for name, message := range map[string][]byte{"with the question": forged, "without": pack(t, bare)} {
		spoof := func(f *feed) {
			f.skb += 100
			f.packet(capture.TX, 66, 2, attacker, pod, message)
			f.packet(capture.RX, podNS, 2, attacker, pod, message)
			f.packet(capture.Drop, podNS, 2, attacker, pod, message, func(p *capture.Packet) { p.Reason = "NO_SOCKET" })
		}
		t.Run(name+", before the true one", func(t *testing.T) {
			f := newFeed(t)
			f.packet(capture.TX, podNS, 2, pod, service, q)
			spoof(f)
			f.skb -= 100
			f.throughService(q, r)
			f.after(time.Second)
			ex := f.one()
			if ex.Outcome != trace.OutcomeAnswered || ex.RCode != "NOERROR" || ex.Drop != nil || len(ex.Path) != 9 {
				t.Errorf("%s %s, drop %+v, %d sightings", ex.Outcome, ex.RCode, ex.Drop, len(ex.Path))
			}
			if ex.Server != nil && ex.Server.PID == 66 {
				t.Errorf("server %+v", ex.Server)
			}
		})
		t.Run(name+", alone", func(t *testing.T) {
			f := newFeed(t)
			f.packet(capture.TX, podNS, 2, pod, service, q)
			spoof(f)
			f.after(6 * time.Second)
			ex := f.one()
			if ex.Outcome != trace.OutcomeUnanswered || ex.RCode != "" || ex.Drop != nil || len(ex.Path) != 1 {
				t.Errorf("%s %s, drop %+v, %d sightings", ex.Outcome, ex.RCode, ex.Drop, len(ex.Path))
			}
			if s := f.table.Stats(); s.Orphans+s.NotDNS != 3 {
				t.Errorf("not counted: %+v", s)
			}
		})
	}
}

// Where the translated query was not seen, connection tracking tells that the
// response comes from where it went.
func TestResponseOfATranslationThatWasNotSeen(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, query(t, "a.example.", 7))
	r := response(t, "a.example.", 7, dns.RcodeSuccess)
	f.packet(capture.TX, nodeNS, 5, server, pod, r, withNAT(dnat))
	f.packet(capture.RX, podNS, 2, service, pod, r)
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || len(ex.Path) != 3 {
		t.Errorf("%s, %d sightings", ex.Outcome, len(ex.Path))
	}
}
