package exchange

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// piece is a fragment of a response of 3,000 bytes with its UDP header.
type piece struct {
	offset, length int
	more           bool
	drop           bool
}

var threePieces = []piece{{0, 1480, true, false}, {1480, 1480, true, false}, {2960, 40, false, false}}

// fragments feeds pieces of a response at a place; only the first has ports, and what
// it has room for of the message.
func (f *feed) fragments(kind capture.Kind, netns uint32, id uint32, message []byte, pieces ...piece) {
	for _, p := range pieces {
		src, dst, payload := service, pod, message[:min(len(message), p.length-udpHeaderLen)]
		if p.offset > 0 {
			src, dst, payload = netip.AddrPortFrom(service.Addr(), 0), netip.AddrPortFrom(pod.Addr(), 0), nil
		}
		k := kind
		if p.drop {
			k = capture.Drop
		}
		f.packet(k, netns, 2, src, dst, payload, func(packet *capture.Packet) {
			if payload != nil {
				packet.PayloadLen = p.length - udpHeaderLen
			}
			packet.Fragment = &capture.Fragment{ID: id, Offset: p.offset, Length: p.length, More: p.more}
		})
	}
}

// large is a response of that size.
func large(t *testing.T, name string, id uint16, size int) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response, m.Id = true, id
	for m.Len() < size {
		text := strings.Repeat("x", min(200, max(0, size-m.Len()-13)))
		m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{text}})
	}
	return pack(t, m)
}

func TestFragments(t *testing.T) {
	size := 3000
	for _, tc := range []struct {
		name string
		feed func(f *feed, r []byte)
		want trace.Fragments
		drop bool
	}{
		{"all arrive", func(f *feed, r []byte) {
			f.fragments(capture.TX, serverNS, 5, r, threePieces...)
			f.fragments(capture.RX, podNS, 5, r, threePieces...)
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 3, SeenBytes: 3000, Size: &size, Complete: true}, false},
		{"one in the middle is missing at the client", func(f *feed, r []byte) {
			f.fragments(capture.TX, serverNS, 5, r, threePieces...)
			f.fragments(capture.RX, podNS, 5, r, threePieces[0], threePieces[2])
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 2, SeenBytes: 1520, Size: &size}, false},
		{"all but the first are missing", func(f *feed, r []byte) {
			f.fragments(capture.RX, podNS, 5, r, threePieces[0])
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 1, SeenBytes: 1480}, false},
		{"a later one is dropped", func(f *feed, r []byte) {
			f.fragments(capture.TX, serverNS, 5, r, threePieces[:2]...)
			f.fragments(capture.TX, serverNS, 5, r, piece{2960, 40, false, true})
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 2, SeenBytes: 2960}, true},
		{"copies do not fill a hole", func(f *feed, r []byte) {
			f.fragments(capture.RX, podNS, 5, r, threePieces[0], threePieces[0], threePieces[0], threePieces[2])
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 4, SeenBytes: 1520, Size: &size}, false},
		{"overlapping, the last one first", func(f *feed, r []byte) {
			f.fragments(capture.RX, podNS, 5, r, threePieces[0], threePieces[2], piece{1000, 1000, true, false}, piece{1900, 1080, true, false})
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 4, SeenBytes: 3000, Size: &size, Complete: true}, false},
		{"of another datagram", func(f *feed, r []byte) {
			f.fragments(capture.RX, podNS, 5, r, threePieces[0])
			f.fragments(capture.RX, podNS, 6, r, threePieces[1:]...)
		}, trace.Fragments{Message: trace.MessageResponse, Seen: 1, SeenBytes: 1480}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			f.packet(capture.TX, podNS, 2, pod, service, query(t, "big.example.", 7))
			tc.feed(f, large(t, "big.example.", 7, size-udpHeaderLen))
			f.after(9 * time.Second)
			ex := f.one()
			got := ex.Fragments
			if got == nil || got.Message != tc.want.Message || got.Seen != tc.want.Seen || got.SeenBytes != tc.want.SeenBytes ||
				(got.Size == nil) != (tc.want.Size == nil) || got.Size != nil && *got.Size != *tc.want.Size || got.Complete != tc.want.Complete {
				t.Errorf("got %+v", got)
			}
			if answered := ex.Outcome == trace.OutcomeAnswered; answered != tc.want.Complete {
				t.Errorf("%s: it has arrived when all of it has", ex.Outcome)
			}
			if (len(ex.Drops) > 0) != tc.drop || ex.RCode != "NOERROR" || len(ex.Rejected) != 0 {
				t.Errorf("drop %v, %s, rejected %v", ex.Drops, ex.RCode, ex.Rejected)
			}
			if r := ex.ResponseSize; r == nil && tc.want.Size != nil || r != nil && *r != size-udpHeaderLen {
				t.Errorf("the response has %v bytes", r)
			}
			for _, s := range ex.Path.All() {
				if s.Src.Port() == 0 {
					t.Errorf("a later fragment is a sighting: %+v", s)
				}
			}
		})
	}
}

func TestFragmentsAreForgotten(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, query(t, "big.example.", 7))
	f.fragments(capture.RX, podNS, 5, response(t, "big.example.", 7, 0), threePieces...)
	f.after(time.Second)
	if len(f.table.datagrams) != 0 {
		t.Errorf("%d left", len(f.table.datagrams))
	}
	f.fragments(capture.RX, podNS, 5, nil, threePieces[2])
	if got := f.table.Stats().Orphans; got != 1 {
		t.Errorf("%d orphans", got)
	}
}

func TestFragmentTableIsBounded(t *testing.T) {
	f := newFeed(t)
	q := query(t, "big.example.", 7)
	for id := range uint32(2*maxDatagrams + 1) {
		from := netip.AddrPortFrom(pod.Addr(), uint16(1024+id/maxSightings))
		f.skb++
		f.packet(capture.TX, podNS, 2, from, service, q, func(p *capture.Packet) {
			p.Fragment = &capture.Fragment{ID: id, Length: 1480, More: true}
		})
	}
	if n := len(f.table.datagrams); n > maxDatagrams || f.table.Stats().Evicted == 0 {
		t.Errorf("%d datagrams, stats %+v", n, f.table.Stats())
	}
}

// One query that is sent in ever new datagrams does not fill the memory.
func TestFragmentsOfOneQueryAreBounded(t *testing.T) {
	f := newFeed(t)
	q := query(t, "big.example.", 7)
	for id := range uint32(2*maxDatagrams + 1) {
		f.packet(capture.TX, podNS, 2, pod, service, q, func(p *capture.Packet) {
			p.Fragment = &capture.Fragment{ID: id, Length: 1480, More: true}
		})
	}
	for _, e := range f.table.due {
		ex := e.Item
		if len(ex.fragmented) > maxSightings || len(ex.pieces) > maxSightings || ex.path.Len() > maxSightings {
			t.Errorf("%d datagrams, %d places, %d sightings", len(ex.fragmented), len(ex.pieces), ex.path.Len())
		}
	}
	stats := f.table.Stats()
	if stats.Sightings == 0 || stats.Fragments == 0 {
		t.Errorf("not counted: %+v", stats)
	}
	f.after(time.Minute)
	if ex := f.one(); ex.Path.Len() != maxSightings || uint64(ex.PathOmitted) != stats.Sightings {
		t.Errorf("%d sightings, %d omitted, expected %d and %d", ex.Path.Len(), ex.PathOmitted, maxSightings, stats.Sightings)
	}
}

// However its fragments come, what is kept of a datagram is bounded.
func TestSpansAreBounded(t *testing.T) {
	var x pieces
	for i := range 10 * maxSpans {
		x.add(span{16 * i, 16*i + 8})
	}
	if len(x.have) != maxSpans || x.bytes() != 8*maxSpans {
		t.Errorf("%d stretches, %d bytes", len(x.have), x.bytes())
	}
}
