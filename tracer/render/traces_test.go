package render

import (
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

func missTrace() *trace.Trace {
	hops := []trace.Hop{hop("prometheus", -1, 1, 1549), hop("errors", 0, 2, 1546), hop("log", 1, 3, 1544),
		hop("cache", 2, 8, 1530), hop("forward", 3, 40, 1470)}
	a := attempt(1, upstreamA, 50, 1440, trace.OutcomeOK, "")
	from := netip.MustParseAddrPort("10.244.0.2:38844")
	up := upstreamExchange(487, 0x0aa5, upstreamA, trace.OutcomeAnswered, 943, upThere(0, from, upstreamA), upBack(924, upstreamA, from))
	up.ClientPort = from.Port()
	return lookup(clientExchange("NOERROR", 1724, there(0), back(1688)),
		corednsQuery(120, trace.CacheMiss, "forward", 1550, hops, a),
		trace.Upstream{Attempt: &a, Exchange: up, Join: trace.JoinExact})
}

func hitTrace() *trace.Trace {
	hops := []trace.Hop{hop("prometheus", -1, 1, 38), hop("errors", 0, 2, 36), hop("log", 1, 3, 34), hop("cache", 2, 8, 25)}
	return lookup(clientExchange("NOERROR", 203, there(0), back(167)), corednsQuery(120, trace.CacheHit, "cache", 40, hops))
}

func failoverTrace() *trace.Trace {
	hops := []trace.Hop{hop("errors", -1, 1, 2001600), hop("cache", 0, 4, 2001580), hop("forward", 1, 31, 2001500)}
	a := attempt(1, upstreamA, 45, 2000210, trace.OutcomeTimeout, "read udp 10.244.0.2:38844->192.168.49.1:53: i/o timeout")
	b := attempt(2, upstreamB, 2000300, 1190, trace.OutcomeOK, "")
	from := netip.MustParseAddrPort("10.244.0.2:38844")
	first := upstreamExchange(180, 0x51c2, upstreamA, trace.OutcomeUnanswered, 0, upThere(0, from, upstreamA))
	second := upstreamExchange(2000440, 0x9d07, upstreamB, trace.OutcomeAnswered, 1100, upThere(0, from, upstreamB), upBack(1080, upstreamB, from))
	t := lookup(clientExchange("NOERROR", 2001900, there(0), back(2001864)),
		corednsQuery(120, trace.CacheMiss, "forward", 2001610, hops, a, b),
		trace.Upstream{Attempt: &a, Exchange: first, Join: trace.JoinExact}, trace.Upstream{Attempt: &b, Exchange: second, Join: trace.JoinExact})
	t.Diagnosis = []trace.Finding{{Code: "upstream-timeout",
		Summary: "Upstream 192.168.49.1:53 did not answer within 2.00 s; CoreDNS then asked 192.168.49.2:53, which did.",
		Evidence: []string{"the query (DNS ID 0x51c2) left the node on eth0 at 0.191 ms; no response came back on its addresses",
			"forward gave up attempt 1 after 2.00 s: read udp 10.244.0.2:38844->192.168.49.1:53: i/o timeout"},
		Advice: "Check that 192.168.49.1 is up and answers from this node: dig @192.168.49.1 example.com"}}
	return t
}

func droppedTrace() *trace.Trace {
	e := clientExchange("", 0, there(0)[:3])
	e.NAT, e.Outcome = nil, trace.OutcomeDropped
	e.Drops = []trace.Drop{{Where: "nft_do_chain", Reason: "NETFILTER_DROP", Message: trace.MessageQuery, NetNS: nsNode, IfName: "cni0", Offset: trace.Seconds(us(94))}}
	t := lookup(e, nil)
	t.Server = nil
	t.Gaps = []string{trace.GapNotRecorded}
	t.Diagnosis = []trace.Finding{{Code: "dropped-by-netfilter",
		Summary:  "A firewall rule on the node dropped the query before it reached CoreDNS.",
		Evidence: []string{"the kernel freed it in nft_do_chain (NETFILTER_DROP), network namespace 4026531840, device cni0, 94 µs after it was sent", "CoreDNS never recorded it"},
		Advice:   "Find the rule: nft list ruleset (or iptables-save -c), and a NetworkPolicy that selects demo/mypod or kube-dns."}}
	return t
}

func unansweredTrace() *trace.Trace {
	again := there(5_000_210)
	e := clientExchange("", 0, there(0), again)
	e.Outcome, e.Transmissions = trace.OutcomeUnanswered, 2
	t := lookup(e, nil)
	t.Server = nil
	t.Gaps = []string{"3 packets, of this lookup or of others, were lost by the tracer while it lasted: some may be missing here"}
	t.Exchange.LostEvents = 3
	t.Diagnosis = []trace.Finding{{Code: "no-response-seen", InDoubt: true, Summary: "No response was seen, but the tracer lost packets in this time: there may have been one.",
		Evidence: []string{"the query was last seen 5.000s after the client sent it, received from device eth0 in namespace coredns (10.244.0.4:50202 > 10.244.0.2:53)",
			"3 packets were lost by the tracer in this time, of this lookup or of others: what was not seen may have happened all the same"},
		Advice: "Do not act on this one alone: ask the client whether it was answered, and look at lookups without lost packets."}}
	return t
}

// connectTrace is an attempt to open a TCP connection.
func connectTrace() *trace.Trace {
	t := droppedTrace()
	e := t.Exchange
	e.QName, e.QType, e.QClass, e.Protocol, e.ID = "", "", "", "tcp", 0
	t.QName, t.QType, t.Gaps = "", "", nil
	return t
}

// askedAgainTrace is of a client that takes a failure for no answer, as glibc does.
func askedAgainTrace() *trace.Trace {
	t := hitTrace()
	e := t.Exchange
	setPath(e, pathOf(e), there(250), back(417))
	e.RCode, t.RCode, e.Transmissions = "SERVFAIL", "SERVFAIL", 2
	t.Gaps = []string{"the server recorded this query 2 times; the first record is shown"}
	return t
}

func responseLostTrace() *trace.Trace {
	t := hitTrace()
	setPath(t.Exchange, there(0), back(167)[:3])
	t.Exchange.RCode, t.RCode, t.Duration, t.Exchange.Duration, t.Exchange.ResponseSize = "", "", nil, nil, nil
	t.Outcome, t.Exchange.Outcome = trace.OutcomeDropped, trace.OutcomeDropped
	t.Exchange.Drops = []trace.Drop{{Where: "nf_hook_slow", Reason: "", Message: trace.MessageResponse, NetNS: nsNode, IfName: "cni0", Offset: trace.Seconds(us(181))}}
	return t
}

func pluginOnlyTrace() *trace.Trace {
	t := missTrace()
	a := attempt(1, upstreamA, 50, 1440, trace.OutcomeOK, "")
	p := lookup(nil, t.Query, trace.Upstream{Attempt: &a, Join: trace.JoinNone})
	p.Time, p.Client, p.Server = t.Query.Time, nil, nil
	p.Gaps = []string{"its packets between client and server were not observed"}
	return p
}

func tracerOnlyTrace() *trace.Trace {
	m := missTrace()
	t := lookup(m.Exchange, nil, trace.Upstream{Exchange: m.Upstreams[0].Exchange, Join: trace.JoinInferred})
	t.Server = &trace.Endpoint{Process: "dnsmasq", PID: 812}
	t.Gaps = []string{trace.GapNotRecorded}
	return t
}

func ambiguousTrace() *trace.Trace {
	m := missTrace()
	t := lookup(m.Exchange, m.Query, trace.Upstream{Attempt: m.Upstreams[0].Attempt, Join: trace.JoinNone})
	t.Gaps = []string{"attempt 1 to 192.168.49.1:53: 12 exchanges of the same question fit and cannot be told apart"}
	return t
}

// answeredTrace holds what a response can say, from a pod on another node.
func answeredTrace() *trace.Trace {
	t := missTrace()
	t.Client.Container = "web"
	e := t.Exchange
	four, ttl := 4, uint32(30)
	e.Flags, e.AnswerCount, e.MinTTL = []string{"rd", "ra", "ad"}, &four, &ttl
	e.Answers = []trace.Answer{{Type: "CNAME", Value: "edge.example.net.", TTL: 300}, {Type: "A", Value: "93.184.215.14", TTL: 30}, {Type: "A", Value: "93.184.215.15", TTL: 30}}
	e.ExtendedError = &trace.ExtendedError{Code: 3, Name: "Stale Answer", Text: "resolver is offline"}
	size := 1700
	e.Fragments = &trace.Fragments{Message: trace.MessageResponse, Seen: 2, SeenBytes: size, Size: &size, Complete: true}
	path := pathOf(e)
	for i := range path {
		if s := &path[i]; s.IfName == "cni0" {
			s.IfName, s.VLAN = "vxlan0", 12
			s.Tunnel = &trace.Tunnel{Kind: "vxlan", Src: netip.MustParseAddrPort("192.168.49.2:51820"), Dst: netip.MustParseAddrPort("192.168.49.3:8472"), VNI: 4096}
		}
	}
	setPath(e, path)
	return t
}

// refusedPacketTrace ends with an ICMP error, and an upstream response of which a
// fragment is missing.
func refusedPacketTrace() *trace.Trace {
	t := unansweredTrace()
	t.Exchange.ICMP = &trace.ICMP{Type: 3, Code: 3, From: corednsAddr.Addr(), Message: trace.MessageQuery, Offset: trace.Seconds(us(120))}
	m := failoverTrace()
	t.Upstreams = m.Upstreams[:1]
	t.Upstreams[0].Exchange.Fragments = &trace.Fragments{Message: trace.MessageResponse, Seen: 1, SeenBytes: 1480}
	t.Upstreams[0].Exchange.ICMP = &trace.ICMP{Type: 2, From: netip.MustParseAddr("fd00::1"), Message: trace.MessageResponse, MTU: 1280, Offset: trace.Seconds(us(900))}
	t.Exchange.Drops = []trace.Drop{{Where: "__udp4_lib_rcv", Reason: "NO_SOCKET", Description: "no socket was bound to the port", Message: trace.MessageQuery, NetNS: nsCoreDNS,
		NetNSName: "coredns", IfName: "eth0", Offset: trace.Seconds(us(110))}}
	return t
}

// socketsTrace is of nodes that show sockets: a query that waited in the server's, an
// attempt that asked for something else, over TCP after UDP, and a response that was
// rejected first.
func socketsTrace() *trace.Trace {
	t := missTrace()
	e := t.Exchange
	e.NAT.Source = trace.NATMatched
	socket := func(at int, message, direction string, netns uint32, src, dst netip.AddrPort) trace.Sighting {
		s := seen(at, message, direction, netns, "", src, dst)
		s.IfIndex = 0
		return s
	}
	q, r := trace.MessageQuery, trace.MessageResponse
	const late = 4000
	setPath(e, there(0),
		[]trace.Sighting{socket(95, q, "delivered", nsCoreDNS, podAddr, corednsAddr), socket(late-20, q, "read", nsCoreDNS, podAddr, corednsAddr)},
		back(late+1688),
		[]trace.Sighting{socket(late+1730, r, "delivered", nsPod, serviceAddr, podAddr), socket(late+1760, r, "read", nsPod, serviceAddr, podAddr)})
	e.Duration = trace.SecondsPtr(us(late + 1730))
	t.Duration = e.Duration
	e.Rejected = []trace.Rejection{{Why: trace.RejectedPort, Src: netip.MustParseAddrPort("10.244.0.2:5353"), RCode: "NOERROR", Size: 56, Offset: trace.Seconds(us(late + 1600))}}
	t.Server.Process, t.Server.PID = "coredns", 812
	e.Server, e.Client = t.Server, t.Client
	t.Query.Time = t.Query.Time.Add(us(late))
	u := &t.Upstreams[0]
	u.Attempt.QName, u.Attempt.QType = "alias.example.net.", "AAAA"
	u.Exchange.Time = u.Exchange.Time.Add(us(late + 500))
	u.Exchange.Protocol = "tcp"
	from := netip.MustParseAddrPort("10.244.0.2:38900")
	first := upstreamExchange(late+487, 0x0aa5, upstreamA, trace.OutcomeAnswered, 300, upThere(0, from, upstreamA), upBack(280, upstreamA, from))
	first.Truncated = true
	u.Earlier = []*trace.Exchange{first}
	return t
}

// rejectedTrace got nothing but what its client could not take, and a reset.
func rejectedTrace() *trace.Trace {
	t := unansweredTrace()
	t.Gaps, t.Diagnosis = nil, nil
	e := t.Exchange
	e.LostEvents, e.Protocol, e.NAT.Source = 0, "tcp", trace.NATBuffer
	e.Rejected = []trace.Rejection{{Why: trace.RejectedMalformed, Src: serviceAddr, Size: 7, Offset: trace.Seconds(us(300))}}
	e.Reset = &trace.Reset{Src: serviceAddr, Offset: trace.Seconds(us(5_000_900))}
	e.Drops = []trace.Drop{{Where: "sch_handle_ingress", Reason: "TC_INGRESS", BPF: "tc ingress", Message: trace.MessageQuery, NetNS: nsNode, IfName: "lxc1", Offset: trace.Seconds(us(5_000_400))}}
	return t
}

// upstreamAloneTrace is an upstream query whose lookup is not known.
func upstreamAloneTrace() *trace.Trace {
	m := missTrace()
	e := m.Upstreams[0].Exchange
	t := lookup(e, nil)
	t.Role, t.Time, t.Server = trace.RoleUpstream, e.Time, nil
	t.Client = &trace.Endpoint{Pod: "coredns-7db6d8ff4d-nlmmg", Namespace: "kube-system", Process: "coredns", PID: 812}
	return t
}

// chainTrace goes through a node-local cache that wrote a record, over IPv6 to a
// CoreDNS that wrote one too, in a namespace that was observed.
func chainTrace() *trace.Trace {
	client, local := netip.MustParseAddrPort("[fd00:10:244::4]:44601"), netip.MustParseAddrPort("[fd00:10:244::1]:53")
	from, up := netip.MustParseAddrPort("[fd00:10:244::1]:38844"), netip.MustParseAddrPort("[fd00:10:244::2]:53")
	q, r := trace.MessageQuery, trace.MessageResponse
	e := clientExchange("NXDOMAIN", 900, []trace.Sighting{
		seen(0, q, "tx", nsPod, "eth0", client, local), seen(12, q, "rx", nsNode, "veth1a2b3c4d", client, local),
		seen(880, r, "tx", nsNode, "veth1a2b3c4d", local, client), seen(900, r, "rx", nsPod, "eth0", local, client)})
	e.ClientIP, e.ClientPort, e.ServerIP, e.NAT, e.Protocol = client.Addr(), client.Port(), local.Addr(), nil, "tcp"
	a := attempt(1, up, 40, 790, trace.OutcomeOK, "")
	outer := corednsQuery(50, trace.CacheMiss, "forward", 810, []trace.Hop{hop("cache", -1, 2, 805), hop("forward", 0, 30, 770)}, a)
	inner := corednsQuery(180, trace.CacheNone, "kubernetes", 500, []trace.Hop{hop("errors", -1, 1, 498), hop("kubernetes", 0, 3, 490)})
	hopExchange := upstreamExchange(100, 0x0aa5, up, trace.OutcomeAnswered, 700, []trace.Sighting{
		seen(0, q, "tx", nsNode, "veth9f8e7d6c", from, up), seen(11, q, "rx", nsCoreDNS, "eth0", from, up),
		seen(690, r, "tx", nsCoreDNS, "eth0", up, from), seen(700, r, "rx", nsNode, "veth9f8e7d6c", up, from)})
	t := lookup(e, outer, trace.Upstream{Attempt: &a, Exchange: hopExchange, Join: trace.JoinExact, Query: inner})
	t.QName, t.RCode = "kubernetes.default.svc.cluster.local.demo.svc.cluster.local.", "NXDOMAIN"
	return t
}

// refreshTrace is work that a lookup set off: no client waited for it.
func refreshTrace() *trace.Trace {
	m := missTrace()
	t := &trace.Trace{
		Header: header(trace.KindTrace, 300), QName: "example.com.", QType: "A", RCode: "NOERROR",
		Duration: trace.SecondsPtr(us(1470)), Outcome: trace.OutcomeAnswered, Upstreams: m.Upstreams,
	}
	t.Upstreams[0].Attempt.Plugin, t.Upstreams[0].Exchange.Protocol = "forward", "tcp"
	t.Gaps = []string{"no client waited for it: it is a prefetch: the cache renewed a popular answer before it ran out, set off by the lookup with the same trace id"}
	return t
}

// twoNodesTrace is of a pod whose CoreDNS runs on another node, whose clock is
// ahead; that node translates the client's address.
func twoNodesTrace() *trace.Trace {
	const ahead = 25_000
	t := missTrace()
	t.Client.Node, t.Server.Node = "node-1", "node-2"
	t.ClockOffset = trace.SecondsPtr(us(ahead))
	e := t.Exchange
	port := uint16(61034)
	e.NAT.ClientIP, e.NAT.ClientPort = netip.MustParseAddr("192.168.49.20"), &port
	path := pathOf(e)
	for i := range path {
		s := &path[i]
		s.Node = "node-1"
		if s.NetNS == nsCoreDNS {
			s.Node = "node-2"
			s.Src, s.Dst = translated(s.Src, port), translated(s.Dst, port)
		}
	}
	e.Node = "node-1"
	setPath(e, path)
	t.Query.Time = t.Query.Time.Add(us(ahead))
	up := t.Upstreams[0].Exchange
	up.Time = up.Time.Add(us(ahead))
	path = pathOf(up)
	for i := range path {
		path[i].Node = "node-2"
	}
	up.Node = "node-2"
	setPath(up, path)
	t.Gaps = []string{"two nodes saw it: the clock of the server's node is 25ms (± 40µs) ahead of that of the client's, judged by query and response; its times are corrected for that"}
	return t
}

// translated is the pod's address as the other node sees it.
func translated(a netip.AddrPort, port uint16) netip.AddrPort {
	if a == podAddr {
		return netip.AddrPortFrom(netip.MustParseAddr("192.168.49.20"), port)
	}
	return a
}

// hostileTrace holds what must not reach a terminal, and nothing that adds up.
func hostileTrace() *trace.Trace {
	t := missTrace()
	parent := 3
	t.QName = "\x1b]0;owned\x07.日本."
	t.Client = &trace.Endpoint{Process: "a\x1b[2J\r\nb"}
	t.Query.Hops = append(t.Query.Hops, trace.Hop{Plugin: "loops", Parent: &parent, Start: -5, Duration: trace.SecondsPtr(-time.Hour)})
	t.Query.Hops[0].Parent = &parent
	path := pathOf(t.Exchange)
	path[2].IfName = "\u202eeth0"
	setPath(t.Exchange, path)
	t.Upstreams[0].Attempt.Error = "\x9b31m"
	t.Diagnosis = []trace.Finding{{Code: "x\x1b", Summary: "\x1b[31m", Evidence: []string{"\x00"}, Advice: "\x7f"}}
	return t
}
