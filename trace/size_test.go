package trace

import (
	"net/netip"
	"testing"
)

// A node writes an exchange for each lookup, whose size is most of what dnstrace costs a
// disk: it does not grow unnoticed. These are one that CoreDNS answered from its cache,
// from pod to pod through a Service, as every hook sees it.
func TestSizeOfAnExchange(t *testing.T) {
	const most = 2210
	client, service, server := netip.MustParseAddrPort("10.244.0.4:33662"), netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.244.0.2:53")
	pod, dns := Device{"node-1", 4026532458, "dt1-client-a", 2, "eth0"}, Device{"node-1", 4026532318, "dt1-coredns", 2, "eth0"}
	in, out := Device{"node-1", 4026532245, "dt1-node", 5, "veth6af82af8"}, Device{"node-1", 4026532245, "dt1-node", 4, "veth99247189"}
	socket := func(d Device) Device { d.IfIndex, d.IfName = 0, ""; return d }
	e := sampleRecords()[2].(*Exchange)
	size, answers, port, ttl := 70, 1, uint16(53), uint32(60)
	e = &Exchange{
		Header: e.Header, DNS: e.DNS, ServerIP: service.Addr(), ServerPort: 53, Outcome: OutcomeAnswered, Transmissions: 1, Node: "node-1",
		NAT: &NAT{ServerIP: server.Addr(), ServerPort: &port, Source: NATConntrack},
		Path: PathOf(
			Sighting{Device: pod, Offset: 0, Message: MessageQuery, Direction: DirectionTX, Src: client, Dst: service},
			Sighting{Device: in, Offset: 5839, Message: MessageQuery, Direction: DirectionRX, Src: client, Dst: service},
			Sighting{Device: out, Offset: 54888, Message: MessageQuery, Direction: DirectionTX, Src: client, Dst: server},
			Sighting{Device: dns, Offset: 63483, Message: MessageQuery, Direction: DirectionRX, Src: client, Dst: server},
			Sighting{Device: socket(dns), Offset: 72548, Message: MessageQuery, Direction: DirectionDelivered, Src: client, Dst: server},
			Sighting{Device: socket(dns), Offset: 342666, Message: MessageQuery, Direction: DirectionRead, Src: client, Dst: server},
			Sighting{Device: dns, Offset: 1220647, Message: MessageResponse, Direction: DirectionTX, Src: server, Dst: client},
			Sighting{Device: out, Offset: 1222587, Message: MessageResponse, Direction: DirectionRX, Src: server, Dst: client},
			Sighting{Device: in, Offset: 1229283, Message: MessageResponse, Direction: DirectionTX, Src: service, Dst: client},
			Sighting{Device: pod, Offset: 1230421, Message: MessageResponse, Direction: DirectionRX, Src: service, Dst: client},
			Sighting{Device: socket(pod), Offset: 1233848, Message: MessageResponse, Direction: DirectionDelivered, Src: service, Dst: client},
			Sighting{Device: socket(pod), Offset: 1382755, Message: MessageResponse, Direction: DirectionRead, Src: service, Dst: client},
		),
		Milestones: Milestones{Query: Progress{Left: MilestoneAt(0), Arrived: MilestoneAt(4), Read: MilestoneAt(5)},
			Response: Progress{Left: MilestoneAt(6), Arrived: MilestoneAt(10), Read: MilestoneAt(11)}},
		Client: &Endpoint{Node: "node-1", Process: "resolver", Cgroup: "/", PID: 18017, TID: 18047},
		Server: &Endpoint{Node: "node-1", Process: "coredns", Cgroup: "/", PID: 18091, TID: 18110},
		Flags:  []string{"rd", "ra"}, AnswerCount: &answers, Answers: []Answer{{Type: "A", Value: "251.223.193.135", TTL: ttl}}, MinTTL: &ttl,
	}
	e.ResponseSize = &size
	if line := e.AppendJSON(nil); len(line) > most {
		t.Errorf("%d bytes, which were %d:\n%s", len(line), most, line)
	} else {
		t.Logf("%d bytes", len(line))
	}
}
