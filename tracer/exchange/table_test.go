package exchange

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Addresses of the tests: a pod, a Service, the pod behind it, the node.
var (
	pod     = netip.MustParseAddrPort("10.244.0.4:50202")
	service = netip.MustParseAddrPort("10.96.0.10:53")
	server  = netip.MustParseAddrPort("10.244.0.2:53")
	node    = netip.MustParseAddrPort("192.168.49.2:33333")
)

// Namespaces of the tests.
const (
	podNS, nodeNS, serverNS = 1, 2, 3
)

var dnat = &capture.NAT{
	Original: capture.Tuple{Src: pod, Dst: service},
	Reply:    capture.Tuple{Src: server, Dst: pod},
}

var epoch = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func wall(mono int64) time.Time { return epoch.Add(time.Duration(mono)) }

// feed drives a table and collects what it passes on.
type feed struct {
	t     *testing.T
	table *Table
	now   int64
	skb   uint64
	base  uint64        // added to the buffers of steps
	pause time.Duration // before a packet is seen at its next place
	got   []*trace.Exchange
}

func newFeed(t *testing.T) *feed {
	return &feed{t: t, table: New(Config{Ports: []uint16{53}, Wall: wall}), skb: 1}
}

func (f *feed) emit(ex *trace.Exchange) { f.got = append(f.got, ex) }

func (f *feed) after(d time.Duration) {
	f.now += int64(d)
	f.table.Advance(f.now, f.emit)
}

// packet feeds one UDP sighting, a microsecond after the one before and the pause.
func (f *feed) packet(kind capture.Kind, netns, ifindex uint32, src, dst netip.AddrPort, payload []byte, change ...func(*capture.Packet)) {
	f.now += int64(time.Microsecond + f.pause)
	p := &capture.Packet{
		Time: f.now, SKB: f.skb, Kind: kind, Protocol: trace.TransportUDP, NetNS: netns, IfIndex: ifindex,
		IfName: "eth0", Src: src, Dst: dst, Payload: payload, PayloadLen: len(payload),
	}
	for _, c := range change {
		c(p)
	}
	f.table.Packet(p)
}

func withNAT(n *capture.NAT) func(*capture.Packet) { return func(p *capture.Packet) { p.NAT = n } }

func (f *feed) one() *trace.Exchange {
	f.t.Helper()
	if len(f.got) != 1 {
		f.t.Fatalf("%d exchanges, expected 1", len(f.got))
	}
	return f.got[0]
}

func query(t *testing.T, name string, id uint16) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Id = id
	return pack(t, m)
}

func response(t *testing.T, name string, id uint16, rcode int) []byte {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m := new(dns.Msg).SetRcode(q, rcode)
	m.Id = id
	return pack(t, m)
}

func pack(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// throughService feeds a whole lookup through a Service.
func (f *feed) throughService(q, r []byte) {
	f.packet(capture.TX, podNS, 2, pod, service, q)
	f.packet(capture.RX, nodeNS, 5, pod, service, q)
	f.packet(capture.TX, nodeNS, 6, pod, server, q, withNAT(dnat))
	f.packet(capture.RX, serverNS, 2, pod, server, q)
	f.skb++
	f.packet(capture.TX, serverNS, 2, server, pod, r)
	f.packet(capture.RX, nodeNS, 6, server, pod, r)
	f.packet(capture.TX, nodeNS, 5, service, pod, r, withNAT(dnat))
	f.packet(capture.RX, podNS, 2, service, pod, r)
	f.skb++
}

func TestThroughService(t *testing.T) {
	f := newFeed(t)
	f.throughService(query(t, "Example.COM.", 0xc1a1), response(t, "example.com.", 0xc1a1, dns.RcodeNameError))
	f.after(50 * time.Millisecond)
	if len(f.got) != 0 {
		t.Fatal("passed on before its last packets could come")
	}
	f.after(60 * time.Millisecond)
	ex := f.one()
	if ex.QName != "example.com." || ex.QType != "A" || ex.RCode != "NXDOMAIN" || ex.Outcome != trace.OutcomeAnswered {
		t.Errorf("%s %s %s %s", ex.QName, ex.QType, ex.RCode, ex.Outcome)
	}
	if ex.ServerIP != service.Addr() || ex.NAT == nil || ex.NAT.ServerIP != server.Addr() || ex.NAT.ClientIP.IsValid() || ex.NAT.Source != trace.NATConntrack {
		t.Errorf("to %s, translated %+v", ex.ServerIP, ex.NAT)
	}
	if ex.Duration.Duration() != 7*time.Microsecond || ex.Path.Len() != 8 || ex.Transmissions != 1 {
		t.Errorf("%s, %d sightings, %d transmissions", ex.Duration.Duration(), ex.Path.Len(), ex.Transmissions)
	}
	if want := "41156cb99fd7e9f79b794954"; ex.Flow.String() != want {
		t.Errorf("flow %s, want %s", ex.Flow, want)
	}
	if got := f.table.Stats(); got.Open != 0 || f.table.keys.Len() != 0 {
		t.Errorf("left in the table: %+v, %d keys", got, f.table.keys.Len())
	}
}

func TestTranslationWithoutConntrack(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 1)
	f.packet(capture.TX, podNS, 2, pod, service, q)
	f.packet(capture.RX, serverNS, 2, pod, server, q)
	f.after(9 * time.Second)
	if n := f.one().NAT; n == nil || n.ServerIP != server.Addr() || n.Source != trace.NATBuffer {
		t.Errorf("translation %+v", n)
	}
}

// Masquerade: the server sees the node's address, and so does the lookup's name.
func TestMasqueradeKeepsOneExchange(t *testing.T) {
	f := newFeed(t)
	q, r := query(t, "example.com.", 9), response(t, "example.com.", 9, 0)
	snat := &capture.NAT{Original: capture.Tuple{Src: pod, Dst: server}, Reply: capture.Tuple{Src: server, Dst: node}}
	f.packet(capture.TX, podNS, 2, pod, server, q)
	f.packet(capture.TX, nodeNS, 3, node, server, q, withNAT(snat))
	f.packet(capture.RX, serverNS, 2, node, server, q)
	f.skb++
	f.packet(capture.TX, serverNS, 2, server, node, r)
	f.packet(capture.RX, nodeNS, 3, server, node, r)
	f.packet(capture.TX, nodeNS, 5, server, pod, r, withNAT(snat))
	f.packet(capture.RX, podNS, 2, server, pod, r)
	f.after(time.Second)
	ex := f.one()
	if ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 7 || ex.ClientIP != pod.Addr() || ex.NAT.ClientIP != node.Addr() {
		t.Errorf("%s, %d sightings, client %s, translated %+v", ex.Outcome, ex.Path.Len(), ex.ClientIP, ex.NAT)
	}
	want := trace.NewFlow(trace.TransportUDP, node, 9, dns.TypeA, dns.ClassINET, []byte("\x07example\x03com\x00"))
	if ex.Flow != want {
		t.Error("the flow is not the one that the server sees")
	}
}

func TestSamePortTwoQuestions(t *testing.T) {
	f := newFeed(t)
	a, aaaa := query(t, "example.com.", 7), query(t, "example.com.", 7)
	binary.BigEndian.PutUint16(aaaa[len(aaaa)-4:], dns.TypeAAAA)
	f.packet(capture.TX, podNS, 2, pod, service, a)
	f.packet(capture.TX, podNS, 2, pod, service, aaaa)
	f.packet(capture.RX, podNS, 2, service, pod, response(t, "example.com.", 7, 0))
	f.after(9 * time.Second)
	if len(f.got) != 2 || f.got[0].QType != "A" || f.got[0].Outcome != trace.OutcomeAnswered || f.got[1].QType != "AAAA" || f.got[1].Outcome != trace.OutcomeUnanswered {
		t.Fatalf("%d exchanges: %+v", len(f.got), f.got)
	}
}

func TestUnansweredAfterTimeout(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, query(t, "example.com.", 7))
	f.after(7900 * time.Millisecond)
	if len(f.got) != 0 {
		t.Fatal("too early")
	}
	f.after(200 * time.Millisecond)
	if ex := f.one(); ex.Outcome != trace.OutcomeUnanswered || ex.RCode != "" || ex.Duration != nil || ex.ResponseSize != nil {
		t.Errorf("%+v", ex)
	}
	f.after(time.Minute)
	f.one()
	if f.table.keys.Len() != 0 {
		t.Error("left in the table")
	}
}

// CoreDNS gives up after 6 s: the response makes a second record of the same
// exchange, and the first is not changed.
func TestLateResponseMakesAFullerRecord(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, query(t, "example.com.", 7))
	f.after(9 * time.Second)
	first := f.one()
	f.packet(capture.RX, podNS, 2, service, pod, response(t, "example.com.", 7, dns.RcodeServerFailure))
	f.packet(capture.Drop, podNS, 2, service, pod, response(t, "example.com.", 7, dns.RcodeServerFailure), func(p *capture.Packet) { p.Reason = "NO_SOCKET" })
	f.after(time.Second)
	if len(f.got) != 2 {
		t.Fatalf("%d records, expected 2", len(f.got))
	}
	second := f.got[1]
	if first.Outcome != trace.OutcomeUnanswered || first.Path.Len() != 1 {
		t.Errorf("the first record changed: %s, %d sightings", first.Outcome, first.Path.Len())
	}
	if second.Outcome != trace.OutcomeDropped || second.RCode != "SERVFAIL" || !second.Time.Equal(first.Time) || second.Flow != first.Flow {
		t.Errorf("the second: %s %s", second.Outcome, second.RCode)
	}
}

func TestRetransmissions(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 7)
	f.packet(capture.TX, podNS, 2, pod, service, q)
	f.packet(capture.RX, nodeNS, 5, pod, service, q)
	f.packet(capture.Drop, nodeNS, 5, pod, service, q, func(p *capture.Packet) { p.Reason = "NETFILTER_DROP" })
	f.after(2 * time.Second)
	f.skb++
	f.throughService(q, response(t, "example.com.", 7, 0))
	f.after(time.Second)
	ex := f.one()
	if ex.Transmissions != 2 || ex.Outcome != trace.OutcomeAnswered || len(ex.Drops) == 0 || ex.Duration.Duration() < 2*time.Second {
		t.Errorf("%d transmissions, %s, drop %v, %s", ex.Transmissions, ex.Outcome, ex.Drops, ex.Duration.Duration())
	}
}

// The answer to a retransmission meets a socket that its first answer closed:
// the lookup was answered all the same.
func TestDuplicateResponseIsNoDrop(t *testing.T) {
	f := newFeed(t)
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	f.packet(capture.TX, podNS, 2, pod, service, q)
	f.packet(capture.TX, podNS, 2, pod, service, q)
	for skb := uint64(10); skb < 12; skb++ {
		f.skb = skb
		f.packet(capture.RX, podNS, 2, service, pod, r)
	}
	f.packet(capture.Drop, podNS, 2, service, pod, r, func(p *capture.Packet) { p.Reason = "NO_SOCKET" })
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || len(ex.Drops) == 0 {
		t.Errorf("%s, drop %+v", ex.Outcome, ex.Drops)
	}
}

// A client whose socket is closed asks no more from it: its exchange is over soon.
func TestClosedSocketEndsTheExchange(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, query(t, "example.com.", 7))
	r := response(t, "example.com.", 7, 0)
	f.packet(capture.RX, podNS, 2, service, pod, r)
	f.packet(capture.Drop, podNS, 2, service, pod, r, func(p *capture.Packet) { p.Reason = "NO_SOCKET" })
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeDropped || len(ex.Drops) != 1 {
		t.Errorf("%s, drops %+v", ex.Outcome, ex.Drops)
	}
}

// A bridge that floods frees copies that are nobody's loss.
func TestOtherHostIsNoDrop(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 7)
	f.packet(capture.TX, podNS, 2, pod, service, q)
	f.packet(capture.Drop, serverNS, 2, pod, service, q, func(p *capture.Packet) { p.Reason, p.NotForHost = "OTHERHOST", true })
	f.after(9 * time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeUnanswered || len(ex.Drops) > 0 {
		t.Errorf("%s, drop %+v", ex.Outcome, ex.Drops)
	}
}

// A client beyond the node: its packets enter and leave by the same device.
func TestRemoteClient(t *testing.T) {
	f := newFeed(t)
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	f.packet(capture.RX, nodeNS, 3, node, server, q)
	f.packet(capture.RX, serverNS, 2, node, server, q)
	f.skb++
	f.packet(capture.TX, serverNS, 2, server, node, r)
	f.packet(capture.TX, nodeNS, 3, server, node, r)
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.Duration.Duration() != 3*time.Microsecond {
		t.Errorf("%s in %v", ex.Outcome, ex.Duration)
	}
}

// Losses are of a time: exchanges that were open then carry them, others do not.
func TestLostEventsAreOnExchangesOfTheirTime(t *testing.T) {
	f := newFeed(t)
	begin := func(name string, id uint16) {
		f.packet(capture.TX, podNS, 2, pod, service, query(t, name, id))
	}
	f.throughService(query(t, "before.example.", 1), response(t, "before.example.", 1, 0))
	f.now += int64(200 * time.Millisecond)
	begin("open.example.", 2)
	first := f.now + int64(time.Millisecond)
	last := first + int64(3*time.Millisecond)
	f.now = last + int64(5*time.Millisecond)
	begin("just-after.example.", 3)
	f.now = last + int64(50*time.Millisecond)
	begin("after.example.", 4)
	f.table.Lost(3, first, last)
	f.after(9 * time.Second)
	got := map[string]uint64{}
	for _, ex := range f.got {
		got[ex.QName] = ex.LostEvents
	}
	want := map[string]uint64{"before.example.": 0, "open.example.": 3, "just-after.example.": 3, "after.example.": 0}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFullTableEvictsTheOldest(t *testing.T) {
	f := newFeed(t)
	for id := range uint16(3) {
		if id == 2 {
			f.table.cfg.MaxBytes = f.table.bytes + 1
		}
		f.packet(capture.TX, podNS, 2, pod, service, query(t, "example.com.", id))
	}
	f.after(0)
	if ex := f.one(); ex.ID != 0 || ex.LostEvents == 0 || f.table.Stats().Evicted != 1 || f.table.Stats().Open != 2 {
		t.Errorf("evicted ID %d, stats %+v", ex.ID, f.table.Stats())
	}
}

func TestFlushLeavesOutWhatOnlyWaits(t *testing.T) {
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, query(t, "waits.example.", 1))
	f.throughService(query(t, "done.example.", 2), response(t, "done.example.", 2, 0))
	f.table.Flush(f.emit)
	if ex := f.one(); ex.QName != "done.example." || f.table.Stats().Unfinished != 1 {
		t.Errorf("%s, stats %+v", ex.QName, f.table.Stats())
	}
}

func TestEDNS(t *testing.T) {
	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	m.SetEdns0(1232, true)
	want := trace.Traceparent{TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}, Flags: 1}
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: want.Append(nil)}}
	r := new(dns.Msg).SetReply(m)
	r.Rcode = dns.RcodeBadVers
	r.SetEdns0(1232, true)
	r.Truncated = true
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, pack(t, m))
	f.packet(capture.RX, podNS, 2, service, pod, pack(t, r))
	f.after(time.Second)
	ex := f.one()
	if !ex.DNSSECOK || ex.BufSize != 1232 || ex.Traceparent != want.String() || ex.RCode != "BADVERS" && ex.RCode != "BADSIG" || !ex.Truncated {
		t.Errorf("%+v", ex)
	}
}

func TestNotDNS(t *testing.T) {
	f := newFeed(t)
	for _, payload := range [][]byte{
		nil, {1, 2, 3}, make([]byte, 12),
		append(query(t, "example.com.", 1)[:12], 0xc0, 12, 0, 1, 0, 1), // a pointer
		query(t, "example.com.", 1)[:20],                               // truncated in the name
	} {
		f.packet(capture.TX, podNS, 2, pod, service, payload)
	}
	if got := f.table.Stats(); got.NotDNS != 5 || got.Open != 0 {
		t.Errorf("%+v", got)
	}
}

// What a client read or its host dropped is over: the kernel uses its buffer again for the
// next response, which is another and says nothing of the first.
func TestBufferOfTheNextResponse(t *testing.T) {
	for _, watched := range []bool{true, false} {
		f := newFeed(t)
		q, r := query(t, "a.example.", 7), response(t, "a.example.", 7, dns.RcodeSuccess)
		sends := func(p *capture.Packet) { p.PID, p.Comm = 71, "coredns" }
		f.packet(tx, podNS, 2, pod, server, q)
		f.packet(rx, serverNS, 2, pod, server, q)
		f.skb++
		for range 3 {
			f.packet(tx, serverNS, 2, server, pod, r, sends)
			f.packet(rx, podNS, 2, server, pod, r)
			if watched {
				f.packet(delivered, podNS, 0, server, pod, r)
				f.packet(read, podNS, 0, server, pod, r)
			}
		}
		f.packet(drop, podNS, 2, server, pod, r, because("NO_SOCKET"))
		f.after(time.Minute)
		if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || len(ex.Drops) != 1 {
			t.Errorf("sockets watched %t: %s, %d drops", watched, ex.Outcome, len(ex.Drops))
		}
	}
}

// A response to a lookup that is over, which was asked several times, comes to the socket that
// has its port now: that one rejects it, and nothing is wrong with its own lookup.
func TestLateResponseToAnEarlierSocket(t *testing.T) {
	f := newFeed(t)
	late := response(t, "a.example.", 7, dns.RcodeSuccess)
	f.throughService(query(t, "a.example.", 7), late)
	for range 2 { // sent again, and answered again
		f.packet(tx, podNS, 2, pod, service, query(t, "a.example.", 7))
		f.skb++
	}
	f.after(200 * time.Millisecond)
	f.packet(tx, podNS, 2, pod, service, query(t, "b.example.", 8))
	f.skb++
	f.back(service, late)
	f.back(service, response(t, "b.example.", 9, dns.RcodeSuccess))
	f.after(time.Minute)
	for _, ex := range f.got {
		if want := map[string]int{"a.example.": 0, "b.example.": 1}[ex.QName]; len(ex.Rejected) != want {
			t.Errorf("%s: rejected %+v", ex.QName, ex.Rejected)
		}
	}
}

// A query that waits for the link address of an endpoint that is gone is dropped after three
// seconds. If its client asked again meanwhile, and another endpoint answered, it is one
// exchange, whose drop tells which endpoint that was.
func TestDroppedAfterTheAnswer(t *testing.T) {
	gone := netip.MustParseAddrPort("10.244.0.77:53")
	f := newFeed(t)
	q, r := query(t, "a.example.", 7), response(t, "a.example.", 7, dns.RcodeSuccess)
	f.packet(tx, podNS, 2, pod, service, q)
	f.packet(rx, nodeNS, 5, pod, service, q)
	waiting := f.skb
	f.skb++
	f.after(1500 * time.Millisecond)
	f.throughService(q, r)
	f.after(time.Second)
	if len(f.got) != 0 {
		t.Fatalf("reported %s after the answer, and one query waits", time.Second)
	}
	f.after(550 * time.Millisecond)
	f.skb = waiting
	f.packet(drop, nodeNS, 6, pod, gone, q, because("NEIGH_FAILED"), withNAT(&capture.NAT{
		Original: capture.Tuple{Src: pod, Dst: service}, Reply: capture.Tuple{Src: gone, Dst: pod},
	}))
	f.after(time.Minute)
	ex := f.one()
	if ex.Outcome != trace.OutcomeAnswered || ex.Transmissions != 2 || len(ex.Drops) != 1 || ex.NAT.ServerIP != server.Addr() {
		t.Fatalf("%s, %d transmissions, drops %+v, NAT %+v", ex.Outcome, ex.Transmissions, ex.Drops, ex.NAT)
	}
	if d := ex.Drops[0]; d.Dst != gone || d.Sent() != 0 {
		t.Errorf("to %s, first seen after %s", d.Dst, d.Sent().Duration())
	}
}
