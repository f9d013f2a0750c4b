package exchange

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// opened feeds the opening of a connection between the pod and the Service's backend.
func (f *feed) opened() {
	f.packet(tx, podNS, 2, pod, server, nil, tcp(99, capture.FlagSYN))
	f.packet(rx, serverNS, 2, pod, server, nil, tcp(99, capture.FlagSYN))
	f.packet(tx, serverNS, 2, server, pod, nil, tcp(499, capture.FlagSYN|capture.FlagACK))
	f.packet(rx, podNS, 2, server, pod, nil, tcp(499, capture.FlagSYN|capture.FlagACK))
}

// hop is a part of a message at one place.
type hop struct {
	kind     capture.Kind
	netns    uint32
	from, to int
	reason   string // of a drop
}

// parts feeds parts of what one end of the connection sends.
func (f *feed) parts(fromClient bool, bytes []byte, hops ...hop) {
	src, dst, seq := server, pod, uint32(500)
	if fromClient {
		src, dst, seq = pod, server, 100
	}
	for _, h := range hops {
		f.skb = uint64(1000 + h.from) // the kernel sends a clone of what it keeps to send again
		f.packet(h.kind, h.netns, 2, src, dst, bytes[h.from:h.to], tcp(seq+uint32(h.from), capture.FlagACK), because(h.reason))
		if h.kind == drop {
			f.now += int64(200 * time.Millisecond)
		}
	}
}

func bigResponse(t *testing.T, n int) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("big.example.", dns.TypeTXT)
	m.Id, m.Response = 7, true
	for range n {
		m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "big.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 5}, Txt: []string{"0123456789abcdef0123456789abcdef"}})
	}
	return framed(pack(t, m))
}

// A message has arrived when all of its bytes have, in whatever order they come.
func TestArrivedWhenWhole(t *testing.T) {
	m := new(dns.Msg).SetQuestion("big.example.", dns.TypeTXT)
	m.Id = 7
	q, r := framed(pack(t, m)), bigResponse(t, 10)
	n := len(r)
	a, b := n/3, 2*n/3
	for _, tc := range []struct {
		name    string
		hops    []hop
		outcome string
		want    time.Duration // from the first sighting of the response to its arrival; steps of 1 µs
		drops   int
	}{
		{"in order", []hop{{tx, serverNS, 0, a, ""}, {rx, podNS, 0, a, ""}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""}}, trace.OutcomeAnswered, 3, 0},
		{"lost and sent again", []hop{
			{tx, serverNS, 0, a, ""}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""}, {tx, serverNS, 0, a, ""}, {rx, podNS, 0, a, ""},
		}, trace.OutcomeAnswered, 4, 0},
		{"reordered before we see it", []hop{{rx, nodeNS, b, n, ""}, {rx, nodeNS, 0, a, ""}, {rx, nodeNS, a, b, ""}, {rx, podNS, a, b, ""}, {rx, podNS, b, n, ""}, {rx, podNS, 0, a, ""}}, trace.OutcomeAnswered, 5, 0},
		{"overlapping", []hop{{tx, serverNS, 0, b, ""}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""}, {rx, podNS, 0, b, ""}}, trace.OutcomeAnswered, 3, 0},
		{"a part is missing", []hop{{tx, serverNS, 0, a, ""}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""}}, trace.OutcomeUnanswered, 0, 0},
		{"dropped, and sent again", []hop{
			{tx, serverNS, 0, a, ""}, {rx, podNS, 0, a, ""}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""}, {drop, podNS, a, n, "NETFILTER_DROP"},
			{tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""},
		}, trace.OutcomeAnswered, 6 + 200_000, 1},
		{"its first part dropped, and sent again", []hop{
			{tx, serverNS, 0, a, ""}, {rx, podNS, 0, a, ""}, {drop, podNS, 0, a, "NETFILTER_DROP"}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""},
			{tx, serverNS, 0, a, ""}, {rx, podNS, 0, a, ""},
		}, trace.OutcomeAnswered, 6 + 200_000, 1},
		{"dropped for good", []hop{{tx, serverNS, 0, a, ""}, {rx, podNS, 0, a, ""}, {tx, serverNS, a, n, ""}, {rx, podNS, a, n, ""}, {drop, podNS, a, n, "NETFILTER_DROP"}}, trace.OutcomeDropped, 0, 1},
		{"a duplicate is dropped", []hop{
			{tx, serverNS, 0, n, ""}, {rx, podNS, 0, n, ""}, {tx, serverNS, 0, n, ""}, {drop, podNS, 0, n, "TCP_OLD_DATA"},
		}, trace.OutcomeAnswered, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			f.opened()
			f.parts(true, q, hop{tx, podNS, 0, len(q), ""}, hop{rx, serverNS, 0, len(q), ""})
			first := f.now + 1000
			f.parts(false, r, tc.hops...)
			f.after(time.Minute)
			ex := f.one()
			if ex.Outcome != tc.outcome || len(ex.Drops) != tc.drops {
				t.Fatalf("%s, drops %+v, %s", ex.Outcome, ex.Drops, milestones(ex))
			}
			if ex.RCode != "NOERROR" || *ex.AnswerCount != 10 || *ex.ResponseSize != n-2 {
				t.Errorf("%s, %d answers, %d bytes", ex.RCode, *ex.AnswerCount, *ex.ResponseSize)
			}
			if at, ok := ex.At(ex.Milestones.Response.Arrived); ok != (tc.outcome == trace.OutcomeAnswered) || ok && at.Sub(wall(first)) != tc.want*time.Microsecond {
				t.Errorf("arrived after %s, want %s", at.Sub(wall(first)), tc.want*time.Microsecond)
			}
		})
	}
}

// What was dropped and is sent again at once, in the buffer that the drop freed, arrives all
// the same.
func TestSentAgainInTheSameBuffer(t *testing.T) {
	m := new(dns.Msg).SetQuestion("big.example.", dns.TypeTXT)
	m.Id = 7
	q, r := framed(pack(t, m)), bigResponse(t, 10)
	f := newFeed(t)
	f.opened()
	f.parts(true, q, hop{tx, podNS, 0, len(q), ""}, hop{rx, serverNS, 0, len(q), ""})
	f.parts(false, r, hop{tx, serverNS, 0, len(r), ""}, hop{rx, nodeNS, 0, len(r), ""}, hop{drop, nodeNS, 0, len(r), "PKT_TOO_BIG"})
	f.now -= int64(200 * time.Millisecond)
	f.parts(false, r, hop{tx, serverNS, 0, len(r), ""}, hop{rx, nodeNS, 0, len(r), ""}, hop{tx, nodeNS, 0, len(r), ""}, hop{rx, podNS, 0, len(r), ""})
	f.after(time.Minute)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || len(ex.Drops) != 1 || !ex.Milestones.Response.Arrived.Seen() {
		t.Errorf("%s, drops %+v, %s", ex.Outcome, ex.Drops, milestones(ex))
	}
}

// A query that its server got in part has not arrived.
func TestQueryInParts(t *testing.T) {
	f := newFeed(t)
	f.opened()
	q := framed(query(t, "a.example.", 7))
	f.parts(true, q, hop{tx, podNS, 0, 10, ""}, hop{tx, podNS, 10, len(q), ""}, hop{rx, serverNS, 10, len(q), ""})
	f.after(time.Minute)
	if ex := f.one(); ex.Milestones.Query.Arrived.Seen() || ex.Outcome != trace.OutcomeUnanswered {
		t.Errorf("%s %s", ex.Outcome, milestones(ex))
	}
}

// A zone transfer is all of its messages, and has arrived with the last.
func TestTransfer(t *testing.T) {
	m := new(dns.Msg).SetAxfr("example.")
	m.Id = 7
	q := framed(pack(t, m))
	var all []byte
	const messages, records = 5, 20
	for range messages {
		r := new(dns.Msg).SetReply(m)
		for i := range records {
			r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: fmt.Sprintf("n%d.example.", i), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: []byte{192, 0, 2, byte(i)}})
		}
		all = append(all, framed(pack(t, r))...)
	}
	one := len(all) / messages
	f := newFeed(t)
	f.opened()
	f.parts(true, q, hop{tx, podNS, 0, len(q), ""}, hop{rx, serverNS, 0, len(q), ""})
	for i := range messages {
		f.parts(false, all, hop{tx, serverNS, i * one, (i + 1) * one, ""}, hop{rx, podNS, i * one, (i + 1) * one, ""})
		f.after(300 * time.Millisecond)
	}
	f.after(2 * time.Second)
	ex := f.one()
	if *ex.AnswerCount != messages*records || *ex.ResponseSize != len(all)-2*messages || ex.Duration.Duration() < 4*300*time.Millisecond {
		t.Errorf("%d records, %d bytes, %s", *ex.AnswerCount, *ex.ResponseSize, ex.Duration.Duration())
	}
	if f.table.Stats().Orphans != 0 {
		t.Errorf("%+v", f.table.Stats())
	}
}

// Numbers that jump far away are of another connection with the same ports, whose SYN
// was not seen.
func TestPortIsUsedAgainUnseen(t *testing.T) {
	for _, jump := range []uint32{1 << 30, 1 << 31, ^uint32(1 << 24)} {
		f := newFeed(t)
		f.opened()
		for i, name := range []string{"first.example.", "second.example."} {
			at := uint32(i) * jump
			for _, s := range []struct {
				fromClient bool
				b          []byte
			}{{true, framed(query(t, name, 7))}, {false, framed(response(t, name, 7, 0))}} {
				src, dst, seq, out, in := pod, server, 100+at, uint32(podNS), uint32(serverNS)
				if !s.fromClient {
					src, dst, seq, out, in = server, pod, 500+at, serverNS, podNS
				}
				f.packet(tx, out, 2, src, dst, s.b, tcp(seq, capture.FlagACK))
				f.packet(rx, in, 2, src, dst, s.b, tcp(seq, capture.FlagACK))
			}
			f.after(time.Second)
		}
		if len(f.got) != 2 || f.got[1].QName != "second.example." || f.got[1].Outcome != trace.OutcomeAnswered || f.got[1].Path.Len() != 4 {
			t.Errorf("jump %d: %d exchanges, %+v", jump, len(f.got), f.table.Stats())
		}
	}
}

// What is kept of a stream with holes is bounded.
func TestHolesAreBounded(t *testing.T) {
	var s stream
	s.begin(1)
	whole := framed(query(t, "a.example.", 7))
	for i := range uint32(1000) {
		s.add(segment{10_000 + i*100, whole[5:], len(whole) - 5, 0})
		s.add(segment{10_050 + i*100, whole, len(whole), 0})
		s.cover(&capture.Packet{NetNS: i % 50}, 10_000+i*100, 10)
	}
	if len(s.pending) > maxPending || len(s.cursors) > maxCursors || len(s.places) > maxCovered || s.bytes() > 64<<10 {
		t.Errorf("%d segments, %d stretches, %d places, %d bytes", len(s.pending), len(s.cursors), len(s.places), s.bytes())
	}
}

func TestStretches(t *testing.T) {
	var c coverage
	const top = ^uint32(0)
	for _, s := range []stretch{{top - 10, top - 5}, {5, 10}, {top - 5, 5}, {20, 30}, {12, 15}} {
		c.add(s)
	}
	for _, tc := range []struct {
		from, to uint32
		want     bool
	}{{top - 10, 10, true}, {top, 3, true}, {top - 11, 2, false}, {5, 12, false}, {20, 30, true}, {12, 21, false}} {
		if c.has(tc.from, tc.to) != tc.want {
			t.Errorf("%d to %d: %t", tc.from, tc.to, !tc.want)
		}
	}
	s := stream{places: []coverage{c}}
	s.uncover(0, 0, 3)
	if c := &s.places[0]; c.has(top, 1) || !c.has(top-10, 0) || !c.has(3, 10) || !c.has(20, 30) {
		t.Errorf("%v", c.have)
	}
}

// Queries on a connection whose backend is seen under another address than the client
// has: the same bytes make it the same connection.
func TestConnectionTranslatedByPrograms(t *testing.T) {
	q, r := framed(query(t, "a.example.", 7)), framed(response(t, "a.example.", 7, 0))
	for _, sameBuffer := range []bool{true, false} {
		for _, hooks := range []bool{true, false} {
			f := newFeed(t)
			if hooks {
				f.table.cfg.Observes = everything
			}
			pass := func(fromClient bool, seq uint32, flags uint8, b []byte) {
				f.skb += 10
				steps := []struct {
					kind     capture.Kind
					netns    uint32
					src, dst uint16
				}{{tx, podNS, 0, 0}, {rx, nodeNS, 0, 0}, {delivered, serverNS, 0, 1}}
				if !fromClient {
					steps = steps[:0]
					steps = append(steps, []struct {
						kind     capture.Kind
						netns    uint32
						src, dst uint16
					}{{tx, serverNS, 1, 0}, {rx, nodeNS, 1, 0}, {delivered, podNS, 0, 0}}...)
				}
				for _, s := range steps {
					if s.kind == delivered && (!hooks || flags&capture.FlagSYN != 0) {
						continue
					}
					src, dst := pod, service
					if s.dst == 1 {
						dst = backend
					}
					if !fromClient {
						src, dst = service, pod
						if s.src == 1 {
							src = backend
						}
					}
					if !sameBuffer {
						f.skb++
					}
					f.packet(s.kind, s.netns, 2, src, dst, b, tcp(seq, flags))
				}
			}
			pass(true, 99, capture.FlagSYN, nil)
			pass(false, 499, capture.FlagSYN|capture.FlagACK, nil)
			pass(true, 100, capture.FlagACK, q)
			pass(false, 500, capture.FlagACK, r)
			f.after(time.Minute)
			f.after(4 * time.Minute)
			if len(f.got) != 1 {
				t.Errorf("same buffer %t, hooks %t: %d exchanges", sameBuffer, hooks, len(f.got))
				continue
			}
			ex, want := f.got[0], 4
			if hooks {
				want = 6
			}
			if ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != want || ex.ServerIP != service.Addr() || len(ex.Rejected) != 0 ||
				ex.NAT == nil || ex.NAT.ServerIP != backend.Addr() {
				t.Errorf("same buffer %t, hooks %t: %s, %d sightings of %s, %+v", sameBuffer, hooks, ex.Outcome, ex.Path.Len(), ex.ServerIP, ex.Rejected)
			}
		}
	}
}

// Queries out of order on one connection, the second answered first, in one segment.
func TestPipelined(t *testing.T) {
	f := newFeed(t)
	f.opened()
	var q, r []byte
	for id := range uint16(50) {
		q = append(q, framed(query(t, "a.example.", id))...)
		r = append(framed(response(t, "a.example.", id, 0)), r...)
	}
	f.parts(true, q, hop{tx, podNS, 0, len(q), ""}, hop{rx, serverNS, 0, len(q), ""})
	f.parts(false, r, hop{tx, serverNS, 0, len(r) / 2, ""}, hop{rx, podNS, 0, len(r) / 2, ""}, hop{tx, serverNS, len(r) / 2, len(r), ""}, hop{rx, podNS, len(r) / 2, len(r), ""})
	f.after(time.Second)
	var ids []uint16
	for _, ex := range f.got {
		if ex.Outcome == trace.OutcomeAnswered && len(ex.Rejected) == 0 {
			ids = append(ids, ex.ID)
		}
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != 50 || len(f.got) != 50 {
		t.Errorf("%d of %d exchanges answered; %+v", len(ids), len(f.got), f.table.Stats())
	}
}

// However a stream is segmented, resent and reordered, every message comes out of it once, as
// it was sent.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		var all []byte
		want := map[uint32]string{} // by sequence number
		const first = 0xffffff00
		for id := range uint16(1 + random.IntN(8)) {
			b := framed(query(t, strings.Repeat("x", 1+random.IntN(60))+".example.", id))
			want[first+uint32(len(all))] = string(b[2:])
			all = append(all, b...)
		}
		var segments []stretch
		for at := 0; at < len(all); {
			n := min(len(all)-at, 1+random.IntN(80))
			overlap := random.IntN(1 + min(at, 10))
			segments = append(segments, stretch{uint32(at - overlap), uint32(at + n)})
			at += n
		}
		if len(segments) > maxPending {
			segments = append(segments[:maxPending], stretch{segments[maxPending-1].to, uint32(len(all))})
		}
		segments = append(segments, segments[random.IntN(len(segments))])
		random.Shuffle(len(segments), func(i, j int) { segments[i], segments[j] = segments[j], segments[i] })
		var s stream
		s.begin(first)
		for _, c := range segments {
			done, _ := s.add(segment{first + c.from, all[c.from:c.to], int(c.to - c.from), 0})
			for _, m := range done {
				if want[m.start] != string(m.body) {
					t.Fatalf("seed %d: at %d came %q", seed, m.start, m.body)
				}
				delete(want, m.start)
			}
		}
		if len(want) > 0 || !s.at(first+uint32(len(all))) {
			t.Fatalf("seed %d: %d messages did not come of %v: %+v", seed, len(want), segments, s.cursors)
		}
	}
}

// A process reads a message in parts: its length first. No packet shows it.
func TestReadFromAStream(t *testing.T) {
	f := newFeed(t)
	f.table.cfg.Observes = everything
	f.opened()
	q, r := framed(query(t, "a.example.", 7)), framed(response(t, "a.example.", 7, 0))
	reads := func(netns uint32, src, dst netip.AddrPort, seq uint32, n int, by string) {
		f.skb = 0
		f.packet(read, netns, 0, src, dst, nil, tcp(seq, 0), sentBy(53, by, 0), func(p *capture.Packet) { p.PayloadLen = n })
	}
	f.parts(true, q, hop{tx, podNS, 0, len(q), ""}, hop{rx, serverNS, 0, len(q), ""}, hop{delivered, serverNS, 0, len(q), ""})
	reads(serverNS, pod, server, 100, 2, "named")
	reads(serverNS, pod, server, 102, len(q)-2, "named")
	f.parts(false, r, hop{tx, serverNS, 0, len(r), ""}, hop{rx, podNS, 0, len(r), ""}, hop{delivered, podNS, 0, len(r), ""})
	reads(podNS, server, pod, 500, len(r), "dig")
	f.after(time.Second)
	ex := f.one()
	if milestones(ex) != "023 467" || ex.Server == nil || ex.Server.Process != "named" || ex.Client == nil || ex.Client.Process != "dig" {
		t.Errorf("%s, %+v → %+v", milestones(ex), ex.Client, ex.Server)
	}
	reads(podNS, server, pod, 500, len(r), "dig")
	if s := f.table.Stats(); s.Unreadable != 0 || s.NotDNS != 0 {
		t.Errorf("%+v", s)
	}
}
