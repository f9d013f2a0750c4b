package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

var router = netip.MustParseAddr("192.168.49.1")

// icmpError feeds an ICMP error about a packet.
func (f *feed) icmpError(from netip.Addr, to netip.Addr, about *capture.ICMP) {
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
			trace.ICMP{Type: 3, Code: 3, From: router, Message: trace.MessageQuery, Offset: 2000, NetNS: podNS, IfName: "eth0", Direction: trace.DirectionRX}},
		{"which quotes the ID alone", func(q []byte) *capture.ICMP { return udpError(11, 0, pod, server, q[:2]) },
			trace.ICMP{Type: 11, From: router, Message: trace.MessageQuery, Offset: 2000, NetNS: podNS, IfName: "eth0", Direction: trace.DirectionRX}},
		{"about the response", func([]byte) *capture.ICMP {
			e := udpError(3, 4, service, pod, response(t, "a.example.", 7, 0))
			e.MTU = 1400
			return e
		}, trace.ICMP{Type: 3, Code: 4, From: router, Message: trace.MessageResponse, MTU: 1400, Offset: 2000, NetNS: podNS, IfName: "eth0", Direction: trace.DirectionRX}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			q := query(t, "a.example.", 7)
			f.packet(capture.TX, podNS, 2, pod, service, q)
			f.packet(capture.TX, podNS, 2, pod, service, query(t, "b.example.", 8))
			f.icmpError(router, pod.Addr(), tc.error(q))
			f.icmpError(router, pod.Addr(), tc.error(q)) // at its next device
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
		f.icmpError(router, pod.Addr(), about)
		if got := f.table.Stats().Orphans; got != 1 {
			t.Errorf("%s: %d orphans", name, got)
		}
	}
}

// That a program made an error of the query itself is said only where it was sent from the
// buffer in which that had come, by no socket, and the query was not dropped.
func TestErrorThatAProgramMakes(t *testing.T) {
	const queryBuffer, other = 7, 8
	sent := func(change ...func(*capture.Packet)) func(*feed, []byte) {
		return func(f *feed, q []byte) {
			f.packet(capture.TX, nodeNS, 4, netip.AddrPortFrom(service.Addr(), 0), netip.AddrPortFrom(pod.Addr(), 0), nil, append([]func(*capture.Packet){
				inBuffer(queryBuffer),
				func(p *capture.Packet) { p.Protocol, p.ICMP = capture.ProtocolICMP, udpError(3, 3, pod, service, q) },
			}, change...)...)
		}
	}
	drop := func(f *feed, q []byte) {
		f.packet(capture.Drop, nodeNS, 4, pod, service, q, inBuffer(other), func(p *capture.Packet) { p.Reason = "NETFILTER_DROP" })
	}
	for _, tc := range []struct {
		name  string
		then  []func(*feed, []byte)
		made  bool
		where uint32
	}{
		{"of the query", []func(*feed, []byte){sent()}, true, nodeNS},
		{"in a buffer of its own", []func(*feed, []byte){sent(inBuffer(other))}, false, nodeNS},
		{"by a socket", []func(*feed, []byte){sent(func(p *capture.Packet) { p.CgroupID = 9 })}, false, nodeNS},
		{"by a process", []func(*feed, []byte){sent(func(p *capture.Packet) { p.PID = 9 })}, false, nodeNS},
		{"elsewhere, in a buffer that is used again", []func(*feed, []byte){sent(func(p *capture.Packet) { p.NetNS = 99 })}, false, 99},
		{"that comes in", []func(*feed, []byte){sent(func(p *capture.Packet) { p.Kind = capture.RX })}, false, nodeNS},
		{"long after", []func(*feed, []byte){func(f *feed, _ []byte) { f.now += 2 * sameSKB }, sent()}, false, nodeNS},
		{"before the query is dropped", []func(*feed, []byte){sent(), drop}, false, nodeNS},
		{"of a query that went on", []func(*feed, []byte){
			func(f *feed, q []byte) { f.packet(capture.TX, nodeNS, 5, pod, server, q, inBuffer(queryBuffer)) }, sent(),
		}, false, nodeNS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			q := query(t, "a.example.", 7)
			f.packet(capture.TX, podNS, 2, pod, service, q, inBuffer(queryBuffer))
			f.packet(capture.RX, nodeNS, 4, pod, service, q, inBuffer(queryBuffer))
			for _, then := range tc.then {
				then(f, q)
			}
			f.after(9 * time.Second)
			if i := f.one().ICMP; i == nil || i.BPF != tc.made || i.NetNS != tc.where {
				t.Errorf("%+v", i)
			}
		})
	}
}

func inBuffer(skb uint64) func(*capture.Packet) { return func(p *capture.Packet) { p.SKB = skb } }

func TestErrorAboutASegment(t *testing.T) {
	f := newFeed(t)
	first, second := framed(query(t, "one.example.", 1)), framed(query(t, "two.example.", 2))
	f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(100, capture.FlagSYN))
	f.packet(capture.TX, podNS, 2, pod, service, first, tcp(101, 0))
	seq := uint32(101 + len(first))
	f.packet(capture.TX, podNS, 2, pod, service, second, tcp(seq, 0))
	f.icmpError(router, pod.Addr(), &capture.ICMP{Type: 3, Code: 1, Protocol: trace.TransportTCP, Src: pod, Dst: service, TCPSeq: seq})
	f.after(9 * time.Second)
	if len(f.got) != 2 || f.got[0].ICMP != nil || f.got[1].QName != "two.example." || f.got[1].ICMP == nil {
		t.Fatalf("%+v, %+v", f.got[0].ICMP, f.got[1].ICMP)
	}
}
