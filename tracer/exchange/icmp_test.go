package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

var router = netip.MustParseAddr("192.168.49.1")

// complain feeds an ICMP error about a packet.
func (f *feed) complain(from netip.Addr, to netip.Addr, about *capture.ICMP) {
	f.packet(capture.RX, podNS, 2, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), nil, func(p *capture.Packet) {
		p.Protocol, p.ICMP = capture.ProtocolICMP, about
	})
}

func udpError(kind, code uint8, src, dst netip.AddrPort, quoted []byte) *capture.ICMP {
	return &capture.ICMP{Type: kind, Code: code, Protocol: trace.TransportUDP, Src: src, Dst: dst, Payload: quoted}
}

func TestErrorsAreTiedToTheirQuery(t *testing.T) {
	for _, tc := range []struct {
		name  string
		error func(q []byte) *capture.ICMP
		want  trace.ICMP
	}{
		{"port unreachable", func(q []byte) *capture.ICMP { return udpError(3, 3, pod, service, q) },
			trace.ICMP{Type: 3, Code: 3, From: router, Message: trace.MessageQuery, Offset: 2000}},
		{"which quotes the ID alone", func(q []byte) *capture.ICMP { return udpError(11, 0, pod, server, q[:2]) },
			trace.ICMP{Type: 11, From: router, Message: trace.MessageQuery, Offset: 2000}},
		{"about the response", func([]byte) *capture.ICMP {
			e := udpError(3, 4, service, pod, response(t, "a.example.", 7, 0))
			e.MTU = 1400
			return e
		}, trace.ICMP{Type: 3, Code: 4, From: router, Message: trace.MessageResponse, MTU: 1400, Offset: 2000}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			q := query(t, "a.example.", 7)
			f.packet(capture.TX, podNS, 2, pod, service, q)
			f.packet(capture.TX, podNS, 2, pod, service, query(t, "b.example.", 8))
			f.complain(router, pod.Addr(), tc.error(q))
			f.complain(router, pod.Addr(), tc.error(q)) // at its next device
			f.after(9 * time.Second)
			if len(f.got) != 2 || f.got[0].ICMP == nil || *f.got[0].ICMP != tc.want || f.got[1].ICMP != nil {
				t.Fatalf("got %+v and %+v", f.got[0].ICMP, f.got[1].ICMP)
			}
			if f.got[0].Outcome != trace.OutcomeUnanswered || f.got[0].Path.Len() != 1 {
				t.Errorf("%s, %d sightings: the error is none of them", f.got[0].Outcome, f.got[0].Path.Len())
			}
		})
	}
}

func TestErrorsThatCannotBeTied(t *testing.T) {
	q := query(t, "a.example.", 7)
	for name, about := range map[string]*capture.ICMP{
		"another client":    udpError(3, 3, node, service, q),
		"another question":  udpError(3, 3, pod, service, query(t, "b.example.", 7)),
		"nothing is quoted": udpError(3, 3, pod, service, nil),
		"two have the ID":   udpError(3, 3, pod, service, []byte{0, 9}),
		"no connection":     {Type: 3, Protocol: trace.TransportTCP, Src: pod, Dst: service},
	} {
		f := newFeed(t)
		f.packet(capture.TX, podNS, 2, pod, service, q)
		f.packet(capture.TX, podNS, 2, pod, service, query(t, "c.example.", 9))
		f.packet(capture.TX, podNS, 2, pod, service, query(t, "d.example.", 9))
		f.complain(router, pod.Addr(), about)
		if got := f.table.Stats().Orphans; got != 1 {
			t.Errorf("%s: %d orphans", name, got)
		}
	}
}

func TestErrorAboutASegment(t *testing.T) {
	f := newFeed(t)
	first, second := framed(query(t, "one.example.", 1)), framed(query(t, "two.example.", 2))
	f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(100, capture.FlagSYN))
	f.packet(capture.TX, podNS, 2, pod, service, first, tcp(101, 0))
	seq := uint32(101 + len(first))
	f.packet(capture.TX, podNS, 2, pod, service, second, tcp(seq, 0))
	f.complain(router, pod.Addr(), &capture.ICMP{Type: 3, Code: 1, Protocol: trace.TransportTCP, Src: pod, Dst: service, TCPSeq: seq})
	f.after(9 * time.Second)
	if len(f.got) != 2 || f.got[0].ICMP != nil || f.got[1].QName != "two.example." || f.got[1].ICMP == nil {
		t.Fatalf("%+v, %+v", f.got[0].ICMP, f.got[1].ICMP)
	}
}
