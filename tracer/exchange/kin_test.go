package exchange

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Kin of an exchange are those under way from its client's address whose names begin with
// the same label, whatever their socket, type and protocol.
func TestKin(t *testing.T) {
	f := newFeed(t)
	f.throughService(query(t, "www.example.", 7), response(t, "www.example.", 7, dns.RcodeSuccess))
	ask := func(client netip.AddrPort, name string, qtype, id uint16) {
		m := new(dns.Msg).SetQuestion(name, qtype)
		m.Id = id
		f.packet(capture.TX, podNS, 2, client, service, pack(t, m))
	}
	port := func(n uint16) netip.AddrPort { return netip.AddrPortFrom(pod.Addr(), n) }
	ask(pod, "www.example.", dns.TypeAAAA, 8)
	ask(port(4001), "WWW.example.", dns.TypeAAAA, 9)
	ask(port(4002), "www.other.test.", dns.TypeA, 10)
	ask(port(4003), "web.example.", dns.TypeA, 11)
	ask(netip.MustParseAddrPort("10.244.0.99:4000"), "www.example.", dns.TypeA, 12)
	f.after(time.Second)
	of := f.one()
	ids := func(of *trace.Exchange, from, until time.Duration) string {
		var ids []uint16
		for _, ex := range f.table.Kin(of, of.Time.Add(from), of.Time.Add(until)) {
			ids = append(ids, ex.ID)
			if ex.Outcome != trace.OutcomeUnanswered || ex.ClientIP != pod.Addr() || ex.ServerIP != service.Addr() || ex.QName == "" {
				t.Errorf("%+v", ex)
			}
			if place, ok := ex.ClientPlace(); !ok || place.NetNS != podNS {
				t.Errorf("query %d: its client is in %v, known %t", ex.ID, place, ok)
			}
		}
		return fmt.Sprint(ids)
	}
	for _, tc := range []struct {
		name        string
		from, until time.Duration
		change      func(*trace.Exchange)
		want        string
	}{
		{"its kin, the newest first", -time.Second, time.Second, func(*trace.Exchange) {}, "[10 9 8]"},
		{"another time", -2 * time.Second, -time.Second, func(*trace.Exchange) {}, "[]"},
		{"another label", -time.Second, time.Second, func(ex *trace.Exchange) { ex.QName = "web.example." }, "[11]"},
		{"another client", -time.Second, time.Second, func(ex *trace.Exchange) { ex.ClientIP = server.Addr() }, "[]"},
		{"an attempt to connect", -time.Second, time.Second, func(ex *trace.Exchange) { ex.QName = "" }, "[]"},
	} {
		ex := of.Clone()
		tc.change(ex)
		if got := ids(ex, tc.from, tc.until); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	for n := range uint16(maxKin) {
		ask(port(5000+n), "www.example.", dns.TypeA, 100+n)
	}
	if got := ids(of, -time.Second, 2*time.Second); got != "[]" {
		t.Errorf("more than can be distinguished: %s", got)
	}
	f.after(time.Minute) // they are reported
	f.after(time.Minute)
	if f.table.kin.Len() != 0 {
		t.Errorf("%d remembered for ever", f.table.kin.Len())
	}
}

// Where an answer was truncated, its client's attempts to connect to the server are kin of
// it.
func TestKinThatConnects(t *testing.T) {
	f := newFeed(t)
	f.here(true, 99, syn, nil)
	of := &trace.Exchange{ServerIP: server.Addr(), ServerPort: server.Port(), DNS: trace.DNS{QName: "large.example.", ClientIP: pod.Addr()}}
	of.Time = wall(0)
	for _, truncated := range []bool{true, false} {
		of.Truncated = truncated
		kin := f.table.Kin(of, wall(0).Add(-time.Minute), wall(0).Add(time.Minute))
		if connects := len(kin) == 1 && kin[0].Connects(); connects != truncated {
			t.Errorf("truncated %t: %v", truncated, kin)
		}
	}
	of.Truncated, of.ServerIP = true, service.Addr()
	if kin := f.table.Kin(of, wall(0).Add(-time.Minute), wall(0).Add(time.Minute)); len(kin) != 0 {
		t.Errorf("to another server: %v", kin)
	}
}

// A client that got what it asked for goes on at once: what is asked later is no kin of it.
func TestKinAnsweredBefore(t *testing.T) {
	for _, tc := range []struct {
		name  string
		rcode int
		later time.Duration
		kin   int
	}{
		{"answered just before", dns.RcodeSuccess, followUpWindow / 2, 1},
		{"answered before", dns.RcodeSuccess, 2 * followUpWindow, 0},
		{"failed before", dns.RcodeNameError, 2 * followUpWindow, 1},
	} {
		f := newFeed(t)
		f.throughService(query(t, "www.example.", 7), response(t, "www.example.", 7, tc.rcode))
		of := &trace.Exchange{DNS: trace.DNS{QName: "www.example.", ClientIP: pod.Addr()}}
		of.Time = wall(f.now).Add(tc.later)
		if kin := f.table.Kin(of, of.Time.Add(-time.Second), of.Time.Add(time.Second)); len(kin) != tc.kin {
			t.Errorf("%s: %d kin, expected %d", tc.name, len(kin), tc.kin)
		}
	}
}
