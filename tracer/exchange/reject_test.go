package exchange

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// back feeds a response on its way from an address to the client.
func (f *feed) back(from netip.AddrPort, r []byte) {
	f.skb++
	for _, at := range []struct {
		kind  capture.Kind
		netns uint32
	}{{tx, serverNS}, {rx, nodeNS}, {tx, nodeNS}, {rx, podNS}} {
		f.packet(at.kind, at.netns, 2, from, pod, r)
	}
	f.skb++
}

// answering is a response with an address.
func answering(t *testing.T, name string, id uint16) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Id, m.Response = id, true
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: []byte{192, 0, 2, 1}}}
	return pack(t, m)
}

var attacker = netip.MustParseAddrPort("10.244.0.66:53")

// A response that comes and that its receiver cannot take is on the record, once, is no
// answer, and is not seen on the way of the exchange's own messages.
func TestRejected(t *testing.T) {
	whole := answering(t, "a.example.", 7)
	bare := new(dns.Msg)
	bare.Id, bare.Response, bare.Rcode = 8, true, dns.RcodeFormatError
	badName := slices.Clone(whole)
	badName[len(badName)-25] = 0x80 // the owner of its record
	for _, tc := range []struct {
		name string
		from netip.AddrPort
		r    []byte
		want trace.Rejection
	}{
		{"another ID", service, response(t, "a.example.", 8, dns.RcodeNameError), trace.Rejection{Why: trace.RejectedID, RCode: "NXDOMAIN", Size: 27}},
		{"another ID, no question", service, pack(t, bare), trace.Rejection{Why: trace.RejectedID, RCode: "FORMERR", Size: 12}},
		{"another question", service, response(t, "b.example.", 7, dns.RcodeSuccess), trace.Rejection{Why: trace.RejectedQuestion, RCode: "NOERROR", Size: 27}},
		{"another address", attacker, whole, trace.Rejection{Why: trace.RejectedAddress, RCode: "NOERROR", Size: len(whole)}},
		{"another port", netip.AddrPortFrom(service.Addr(), 5353), whole, trace.Rejection{Why: trace.RejectedPort, RCode: "NOERROR", Size: len(whole)}},
		{"no message", service, []byte("garbage that is no DNS at all"), trace.Rejection{Why: trace.RejectedMalformed, Size: 29}},
		{"too short", service, []byte{1, 2, 3}, trace.Rejection{Why: trace.RejectedMalformed, Size: 3}},
		{"a query", service, query(t, "a.example.", 7), trace.Rejection{Why: trace.RejectedMalformed, Size: 27}},
		{"a name that is none", service, badName, trace.Rejection{Why: trace.RejectedMalformed, RCode: "NOERROR", Size: len(whole)}},
		{"truncated in its record", service, whole[:len(whole)-3], trace.Rejection{Why: trace.RejectedIncomplete, RCode: "NOERROR", Size: len(whole) - 3}},
		{"truncated before its record", service, whole[:27], trace.Rejection{Why: trace.RejectedIncomplete, RCode: "NOERROR", Size: 27}},
	} {
		for _, answered := range []bool{false, true} {
			f := newFeed(t)
			f.packet(tx, podNS, 2, pod, service, query(t, "a.example.", 7))
			f.packet(rx, serverNS, 2, pod, service, query(t, "a.example.", 7))
			f.back(tc.from, tc.r)
			tc.want.Src = tc.from
			tc.want.Offset = trace.Seconds(5 * time.Microsecond)
			if answered {
				f.back(service, whole)
			}
			f.after(time.Minute)
			f.after(time.Minute)
			ex := f.one()
			if len(ex.Rejected) != 1 {
				t.Errorf("%s: rejected %+v, %+v", tc.name, ex.Rejected, f.table.Stats())
				continue
			}
			if got := ex.Rejected[0]; got.Why != tc.want.Why || got.RCode != tc.want.RCode || got.Size != tc.want.Size || got.Src != tc.from {
				t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
			}
			outcome, rcode, sightings := trace.OutcomeUnanswered, "", 2
			if answered {
				outcome, rcode, sightings = trace.OutcomeAnswered, "NOERROR", 6
			}
			if ex.Outcome != outcome || ex.RCode != rcode || ex.Path.Len() != sightings || len(ex.Drops) != 0 || ex.NAT != nil {
				t.Errorf("%s, then answered %t: %s %s, %d sightings, NAT %+v", tc.name, answered, ex.Outcome, ex.RCode, ex.Path.Len(), ex.NAT)
			}
			if s := f.table.Stats(); s.Orphans != 0 || s.NotDNS != 0 || s.Open != 0 {
				t.Errorf("%s: %+v", tc.name, s)
			}
		}
	}
}

// A response with TC, or one that was captured in part, is taken.
func TestNotIncomplete(t *testing.T) {
	truncated := answering(t, "a.example.", 7)[:27]
	saysSo := slices.Clone(truncated)
	saysSo[2] |= bitTC >> 8
	for name, change := range map[string]func(*capture.Packet){
		"truncated":        func(p *capture.Packet) { p.Payload = saysSo },
		"captured in part": func(p *capture.Packet) { p.PayloadLen = 4000 },
	} {
		f := newFeed(t)
		f.packet(tx, podNS, 2, pod, service, query(t, "a.example.", 7))
		f.skb++
		f.packet(rx, podNS, 2, service, pod, truncated, change)
		f.after(time.Minute)
		if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || len(ex.Rejected) != 0 {
			t.Errorf("%s: %s, %+v", name, ex.Outcome, ex.Rejected)
		}
	}
}

// A response that may be of two exchanges is of none, and one that does not come to the
// client is not rejected by it.
func TestNotRejected(t *testing.T) {
	for name, feed := range map[string]func(*feed){
		"two wait": func(f *feed) {
			f.packet(tx, podNS, 2, pod, service, query(t, "b.example.", 8))
			f.back(service, response(t, "x.example.", 9, 0))
		},
		"on its way": func(f *feed) {
			f.skb++
			f.packet(tx, serverNS, 2, service, pod, response(t, "a.example.", 9, 0))
		},
		"another client":    func(f *feed) { f.packet(rx, podNS, 2, service, node, response(t, "a.example.", 9, 0)) },
		"elsewhere, and ID": func(f *feed) { f.packet(rx, podNS, 2, attacker, pod, response(t, "a.example.", 9, 0)) },
	} {
		f := newFeed(t)
		f.packet(tx, podNS, 2, pod, service, query(t, "a.example.", 7))
		feed(f)
		f.after(time.Minute)
		for _, ex := range f.got {
			if len(ex.Rejected) != 0 || ex.Path.Len() != 1 {
				t.Errorf("%s: %+v, %d sightings", name, ex.Rejected, ex.Path.Len())
			}
		}
	}
}

// A response whose source address was not translated back is not the client's: a
// translation that was not undone.
func TestTranslationNotUndone(t *testing.T) {
	q, r := query(t, "a.example.", 7), response(t, "a.example.", 7, 0)
	f := newFeed(t)
	f.packet(tx, podNS, 2, pod, service, q)
	f.packet(tx, nodeNS, 6, pod, server, q, withNAT(dnat))
	f.packet(rx, serverNS, 2, pod, server, q)
	f.back(server, r)
	f.after(time.Minute)
	if ex := f.one(); ex.Outcome != trace.OutcomeUnanswered || len(ex.Rejected) != 1 || ex.Rejected[0].Why != trace.RejectedAddress || ex.Rejected[0].Src != server {
		t.Errorf("%s, %+v", ex.Outcome, ex.Rejected)
	}
}

// A client that translates in its own namespace gets the response from the translated
// address at its device.
func TestTranslationInTheClientsNamespace(t *testing.T) {
	q, r := query(t, "a.example.", 7), response(t, "a.example.", 7, 0)
	for name, n := range map[string]*capture.NAT{"conntrack": {Original: capture.Tuple{Src: pod, Dst: service}, Reply: capture.Tuple{Src: server, Dst: pod}}, "programs": nil} {
		f := newFeed(t)
		f.packet(tx, podNS, 2, pod, server, q, withNAT(n))
		f.packet(rx, serverNS, 2, pod, server, q)
		f.back(server, r)
		f.skb--
		f.packet(delivered, podNS, 0, service, pod, r)
		f.after(time.Minute)
		if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || len(ex.Rejected) != 0 {
			t.Errorf("%s: %s, %+v", name, ex.Outcome, ex.Rejected)
		}
	}
}

// The response with the right port, ID and question that comes from where the client did
// not ask is dropped where there is no socket for it: that is no drop of the exchange.
func TestForgedIsDropped(t *testing.T) {
	q, r := query(t, "bank.example.", 7), response(t, "bank.example.", 7, dns.RcodeSuccess)
	f := newFeed(t)
	f.packet(tx, podNS, 2, pod, service, q)
	f.skb = 100
	f.packet(tx, 66, 2, attacker, pod, response(t, "bank.example.", 7, dns.RcodeNameError))
	f.packet(rx, podNS, 2, attacker, pod, response(t, "bank.example.", 7, dns.RcodeNameError))
	f.packet(drop, podNS, 2, attacker, pod, response(t, "bank.example.", 7, dns.RcodeNameError), because("NO_SOCKET"))
	f.skb = 1
	f.throughService(q, r)
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.RCode != "NOERROR" || len(ex.Drops) != 0 || ex.Path.Len() != 9 || len(ex.Rejected) != 1 {
		t.Errorf("%s %s, drops %+v, %d sightings, %+v", ex.Outcome, ex.RCode, ex.Drops, ex.Path.Len(), ex.Rejected)
	}
}

// Where the translated query was not seen, connection tracking tells that the response
// comes from where it went.
func TestResponseOfATranslationThatWasNotSeen(t *testing.T) {
	f := newFeed(t)
	f.packet(tx, podNS, 2, pod, service, query(t, "a.example.", 7))
	r := response(t, "a.example.", 7, dns.RcodeSuccess)
	f.packet(tx, nodeNS, 5, server, pod, r, withNAT(dnat))
	f.packet(rx, podNS, 2, service, pod, r)
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 3 || ex.NAT.Source != trace.NATConntrack {
		t.Errorf("%s, %d sightings", ex.Outcome, ex.Path.Len())
	}
}

// Some servers do not repeat a question that they could not read.
func TestResponseWithoutQuestion(t *testing.T) {
	bare := new(dns.Msg)
	bare.Id, bare.Response, bare.Rcode = 7, true, dns.RcodeFormatError
	for _, protocol := range []uint8{trace.TransportUDP, trace.TransportTCP} {
		f := newFeed(t)
		q, r := query(t, "a.example.", 7), pack(t, bare)
		over := func(p *capture.Packet) { p.Protocol = protocol }
		if protocol == trace.TransportTCP {
			q, r = framed(q), framed(r)
			f.packet(tx, podNS, 2, pod, service, nil, tcp(0, capture.FlagSYN))
			f.packet(tx, serverNS, 2, service, pod, nil, tcp(0, capture.FlagSYN|capture.FlagACK))
			over = tcp(1, capture.FlagACK)
		}
		f.packet(tx, podNS, 2, pod, service, q, over)
		f.skb++
		f.packet(tx, serverNS, 2, service, pod, r, over)
		f.packet(rx, podNS, 2, service, pod, r, over)
		f.after(time.Second)
		if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.RCode != "FORMERR" || ex.Path.Len() != 3 {
			t.Errorf("protocol %d: %s %s, %d sightings", protocol, ex.Outcome, ex.RCode, ex.Path.Len())
		}
	}
}

// On a connection.
func TestRejectedOverTCP(t *testing.T) {
	whole := answering(t, "a.example.", 7)
	for _, tc := range []struct {
		name, why string
		r         []byte
	}{
		{"another ID", trace.RejectedID, response(t, "a.example.", 8, 0)},
		{"another question", trace.RejectedQuestion, response(t, "b.example.", 7, 0)},
		{"no message", trace.RejectedMalformed, bytes.Repeat([]byte("garbage"), 4)},
		{"truncated", trace.RejectedIncomplete, whole[:30]},
	} {
		f := newFeed(t)
		f.segments(true, [][]byte{framed(query(t, "a.example.", 7))}, [][]byte{framed(tc.r), framed(whole)})
		f.after(time.Minute)
		ex := f.one()
		if len(ex.Rejected) != 1 || ex.Rejected[0].Why != tc.why || ex.Rejected[0].Src != service || ex.Rejected[0].Size != len(tc.r) {
			t.Errorf("%s: %+v", tc.name, ex.Rejected)
		}
		if ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 5 || ex.RCode != "NOERROR" || *ex.ResponseSize != len(whole) {
			t.Errorf("%s: %s %s, %d sightings", tc.name, ex.Outcome, ex.RCode, ex.Path.Len())
		}
	}
}

// CoreDNS uses a socket again for another question while the one before, which got no
// answer that it could take, is still open: the question tells which query a response
// with another ID was meant for.
func TestRejectedIDOfTheSameQuestion(t *testing.T) {
	f := newFeed(t)
	for id, name := range map[uint16]string{7: "a.example.", 9: "b.example."} {
		f.packet(tx, podNS, 2, pod, service, query(t, name, id))
		f.packet(rx, serverNS, 2, pod, service, query(t, name, id))
		f.skb++
	}
	f.back(service, response(t, "b.example.", 20, dns.RcodeSuccess))
	f.after(time.Minute)
	for _, ex := range f.got {
		want := 0
		if ex.QName == "b.example." {
			want = 1
		}
		if len(ex.Rejected) != want || want == 1 && ex.Rejected[0].Why != trace.RejectedID {
			t.Errorf("%s: rejected %+v", ex.QName, ex.Rejected)
		}
	}
	if len(f.got) != 2 {
		t.Errorf("%d exchanges", len(f.got))
	}
}

// Where a redirected packet is received at no device of the client's namespace, that its
// socket does not take it shows that it came there, and from where.
func TestSourceOfWhatFoundNoSocket(t *testing.T) {
	q, r := query(t, "a.example.", 7), response(t, "a.example.", 7, 0)
	for from, want := range map[netip.AddrPort]string{server: trace.RejectedAddress, netip.AddrPortFrom(service.Addr(), 5353): trace.RejectedPort, service: ""} {
		f := newFeed(t)
		f.packet(tx, podNS, 2, pod, service, q)
		f.packet(rx, serverNS, 2, pod, service, q)
		f.skb++
		f.packet(tx, serverNS, 2, from, pod, r)
		f.packet(drop, podNS, 2, from, pod, r, because("NO_SOCKET"))
		f.after(time.Minute)
		ex := f.one()
		if want == "" {
			if ex.Outcome != trace.OutcomeDropped || len(ex.Rejected) != 0 {
				t.Errorf("from %s: %s, %+v", from, ex.Outcome, ex.Rejected)
			}
			continue
		}
		if ex.Outcome != trace.OutcomeUnanswered || len(ex.Drops) != 0 || len(ex.Rejected) != 1 || ex.Rejected[0].Why != want || ex.Rejected[0].Src != from {
			t.Errorf("from %s: %s, %+v, drops %+v", from, ex.Outcome, ex.Rejected, ex.Drops)
		}
	}
}

// What a socket sends in the buffer of another garbage that just passed is of its own exchange.
func TestGarbageInTheBufferOfAnother(t *testing.T) {
	f := newFeed(t)
	clients := []netip.AddrPort{pod, netip.AddrPortFrom(pod.Addr(), 50203)}
	for i, client := range clients {
		f.packet(tx, podNS, 2, client, server, query(t, "a.example.", uint16(7+i)))
		f.packet(rx, serverNS, 2, client, server, query(t, "a.example.", uint16(7+i)))
		f.skb++
	}
	for _, client := range clients {
		f.packet(tx, serverNS, 2, server, client, []byte{1, 2}, func(p *capture.Packet) { p.PID = 71 })
		f.packet(rx, podNS, 2, server, client, []byte{1, 2})
	}
	f.after(time.Minute)
	for _, ex := range f.got {
		if len(ex.Rejected) != 1 {
			t.Errorf("%s: rejected %+v", netip.AddrPortFrom(ex.ClientIP, ex.ClientPort), ex.Rejected)
		}
	}
}

// Of two that one socket asked one after the other, garbage is the one's that had none.
func TestGarbageOfOneSocket(t *testing.T) {
	f := newFeed(t)
	for i := range uint16(2) {
		f.packet(tx, podNS, 2, pod, server, query(t, "a.example.", 7+i))
		f.skb++
		f.back(server, []byte{0xff})
	}
	f.after(time.Minute)
	for _, ex := range f.got {
		if len(ex.Rejected) != 1 {
			t.Errorf("ID %d: rejected %+v", ex.ID, ex.Rejected)
		}
	}
}
