package render

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// The times are those of a real lookup on minikube; the drawings are what
// people will read, so the samples are as full as real traces.
var (
	sampleTime = time.Date(2026, 11, 21, 3, 4, 5, 556567446, time.UTC)

	podAddr     = netip.MustParseAddrPort("10.244.0.4:50202")
	serviceAddr = netip.MustParseAddrPort("10.96.0.10:53")
	corednsAddr = netip.MustParseAddrPort("10.244.0.2:53")
	upstreamA   = netip.MustParseAddrPort("192.168.49.1:53")
	upstreamB   = netip.MustParseAddrPort("192.168.49.2:53")
)

// Namespaces of the sample node; the node's own has no name.
const (
	nsPod      = 4026532572
	nsNode     = 4026531840
	nsCoreDNS  = 4026532859
	nsUpstream = 4026533001
)

func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }

// seen is a sighting at a time in microseconds; dir is "query rx" or the like.
func seen(at int, message, direction string, netns uint32, device string, src, dst netip.AddrPort) trace.Sighting {
	alias := map[uint32]string{nsPod: "pod-a", nsCoreDNS: "coredns", nsUpstream: "upstream"}[netns]
	where := trace.Device{NetNS: netns, NetNSName: alias, IfIndex: uint32(len(device)), IfName: device}
	return trace.Sighting{Device: where, Offset: trace.Seconds(us(at)), Message: message, Direction: direction, Src: src, Dst: dst}
}

// there and back are the ways of a packet between the pod and CoreDNS.
func there(at int) []trace.Sighting {
	q := trace.MessageQuery
	return []trace.Sighting{
		seen(at, q, "tx", nsPod, "eth0", podAddr, serviceAddr),
		seen(at+9, q, "rx", nsNode, "veth1a2b3c4d", podAddr, serviceAddr),
		seen(at+16, q, "rx", nsNode, "cni0", podAddr, serviceAddr),
		seen(at+82, q, "tx", nsNode, "cni0", podAddr, corednsAddr),
		seen(at+85, q, "tx", nsNode, "veth9f8e7d6c", podAddr, corednsAddr),
		seen(at+91, q, "rx", nsCoreDNS, "eth0", podAddr, corednsAddr),
	}
}

func back(at int) []trace.Sighting {
	r := trace.MessageResponse
	return []trace.Sighting{
		seen(at, r, "tx", nsCoreDNS, "eth0", corednsAddr, podAddr),
		seen(at+4, r, "rx", nsNode, "veth9f8e7d6c", corednsAddr, podAddr),
		seen(at+9, r, "rx", nsNode, "cni0", corednsAddr, podAddr),
		seen(at+25, r, "tx", nsNode, "cni0", serviceAddr, podAddr),
		seen(at+30, r, "tx", nsNode, "veth1a2b3c4d", serviceAddr, podAddr),
		seen(at+36, r, "rx", nsPod, "eth0", serviceAddr, podAddr),
	}
}

// upThere and upBack are the ways between CoreDNS and an upstream outside.
func upThere(at int, from, to netip.AddrPort) []trace.Sighting {
	q := trace.MessageQuery
	return []trace.Sighting{
		seen(at, q, "tx", nsCoreDNS, "eth0", from, to),
		seen(at+6, q, "rx", nsNode, "veth9f8e7d6c", from, to),
		seen(at+11, q, "tx", nsNode, "eth0", from, to),
	}
}

func upBack(at int, from, to netip.AddrPort) []trace.Sighting {
	r := trace.MessageResponse
	return []trace.Sighting{
		seen(at, r, "rx", nsNode, "eth0", from, to),
		seen(at+12, r, "tx", nsNode, "veth9f8e7d6c", from, to),
		seen(at+19, r, "rx", nsCoreDNS, "eth0", from, to),
	}
}

func header(kind string, at int) trace.Header {
	flow := trace.NewFlow(trace.TransportUDP, podAddr, 0xc1a1, 1, 1, []byte("\x07example\x03com\x00"))
	return trace.Header{V: trace.Version, Record: kind, Time: sampleTime.Add(us(at)), TraceID: trace.NewTraceID(sampleTime, flow), Flow: flow}
}

func question4(client netip.AddrPort, id uint16, rcode string, duration int) trace.DNS {
	d := trace.DNS{ClientIP: client.Addr(), ClientPort: client.Port(), QName: "example.com.", QType: "A", QClass: "IN",
		Protocol: "udp", ID: id, RequestSize: 29, BufSize: 1232, RCode: rcode}
	if duration > 0 {
		size := 56
		d.Duration, d.ResponseSize = trace.SecondsPtr(us(duration)), &size
	}
	return d
}

func clientExchange(rcode string, duration int, path ...[]trace.Sighting) *trace.Exchange {
	port := corednsAddr.Port()
	e := &trace.Exchange{
		Header: header(trace.KindExchange, 0), DNS: question4(podAddr, 0xc1a1, rcode, duration),
		ServerIP: serviceAddr.Addr(), ServerPort: serviceAddr.Port(),
		NAT:     &trace.NAT{ServerIP: corednsAddr.Addr(), ServerPort: &port, Source: trace.NATConntrack},
		Outcome: trace.OutcomeAnswered, Transmissions: 1,
	}
	setPath(e, path...)
	return e
}

// setPath gives an exchange its path, and the milestones of one whose ends are where
// the samples have them.
func setPath(e *trace.Exchange, parts ...[]trace.Sighting) {
	all := slices.Concat(parts...)
	e.Path = trace.PathOf(all...)
	e.Milestones = trace.Milestones{Response: trace.Progress{Left: trace.NotObservable}}
	q, r := &e.Milestones.Query, &e.Milestones.Response
	first := func(m *trace.Milestone, i int, is bool) {
		if is && !m.Seen() {
			*m = trace.MilestoneAt(i)
		}
	}
	for i, s := range all {
		if s.Message == trace.MessageQuery {
			first(&q.Left, i, i == 0 && s.Direction == trace.DirectionTX)
			first(&q.Arrived, i, s.Direction == trace.DirectionDelivered || s.Direction == trace.DirectionRX && s.NetNS == nsCoreDNS)
			first(&q.Read, i, s.Direction == trace.DirectionRead)
			continue
		}
		home := s.NetNS == all[0].NetNS
		first(&r.Left, i, s.Direction == trace.DirectionTX && !home && s.NetNS != nsNode)
		first(&r.Arrived, i, home && (s.Direction == trace.DirectionDelivered || s.Direction == trace.DirectionRX))
		first(&r.Read, i, s.Direction == trace.DirectionRead)
	}
	if !r.Left.Seen() && !strings.HasPrefix(e.Outcome, trace.OutcomeAnswered) {
		r.Left = trace.NotSeen
	}
}

// pathOf returns the sightings of an exchange, to be changed and set again.
func pathOf(e *trace.Exchange) []trace.Sighting {
	var all []trace.Sighting
	for _, s := range e.Path.All() {
		all = append(all, s)
	}
	return all
}

// upstreamExchange begins at a time of the trace; the offsets of its path count
// from there.
func upstreamExchange(at int, id uint16, server netip.AddrPort, outcome string, duration int, path ...[]trace.Sighting) *trace.Exchange {
	from := netip.AddrPortFrom(corednsAddr.Addr(), 38844+id%7)
	e := &trace.Exchange{
		Header: header(trace.KindExchange, at), DNS: question4(from, id, "", duration),
		ServerIP: server.Addr(), ServerPort: server.Port(), Outcome: outcome, Transmissions: 1,
	}
	if outcome == trace.OutcomeAnswered {
		e.RCode = "NOERROR"
	}
	setPath(e, path...)
	return e
}

func hop(plugin string, parent, start, duration int) trace.Hop {
	h := trace.Hop{Plugin: plugin, Start: trace.Seconds(us(start)), Duration: trace.SecondsPtr(us(duration))}
	if parent >= 0 {
		h.Parent = &parent
	}
	return h
}

func corednsQuery(at int, cache, answeredBy string, duration int, hops []trace.Hop, attempts ...trace.Attempt) *trace.Query {
	return &trace.Query{
		Header: header(trace.KindQuery, at), DNS: question4(podAddr, 0xc1a1, "NOERROR", duration),
		ServerIP: corednsAddr.Addr(), ServerPort: corednsAddr.Port(), Zone: ".", Cache: cache, AnsweredBy: answeredBy,
		Outcome: trace.OutcomeAnswered, Hops: hops, Upstreams: attempts,
	}
}

func attempt(n int, address netip.AddrPort, start, duration int, outcome, err string) trace.Attempt {
	return trace.Attempt{Attempt: n, Address: address.String(), Start: trace.Seconds(us(start)),
		Duration: trace.SecondsPtr(us(duration)), Outcome: outcome, Error: err, Plugin: "forward"}
}

func lookup(e *trace.Exchange, q *trace.Query, upstreams ...trace.Upstream) *trace.Trace {
	t := &trace.Trace{
		Header: header(trace.KindTrace, 0), QName: "example.com.", QType: "A",
		Client: &trace.Endpoint{Pod: "mypod", Namespace: "demo", Process: "dig", PID: 1392643},
		Server: &trace.Endpoint{Pod: "coredns-7db6d8ff4d-nlmmg", Namespace: "kube-system"}, Exchange: e, Query: q, Upstreams: upstreams,
	}
	if e != nil {
		t.RCode, t.Duration, t.Outcome = e.RCode, e.Duration, e.Outcome
	} else {
		t.RCode, t.Duration, t.Outcome = q.RCode, q.Duration, q.Outcome
	}
	return t
}
