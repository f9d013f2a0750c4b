package pcap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

var (
	began   = time.Date(2026, 11, 21, 8, 0, 0, 123456789, time.UTC)
	pod     = netip.MustParseAddrPort("10.244.0.4:50202")
	service = netip.MustParseAddrPort("10.96.0.10:53")
	coredns = netip.MustParseAddrPort("10.244.0.2:53")
)

func sighting(offset time.Duration, message string, src, dst netip.AddrPort, netns, ifname, direction string) trace.Sighting {
	return trace.Sighting{Offset: trace.Seconds(offset), Message: message, Device: trace.Device{NetNS: 4026532000, NetNSName: netns, IfName: ifname}, Direction: direction, Src: src, Dst: dst}
}

func writeAll(w io.Writer, captured Captured, traces ...*trace.Trace) error {
	p := New(captured)
	defer p.Close()
	for _, t := range traces {
		if err := p.Add(t); err != nil {
			return err
		}
	}
	return p.Write(w)
}

// answered is a lookup through a Service, seen in two namespaces.
func answered() *trace.Trace {
	size := 120
	ex := &trace.Exchange{
		ServerIP: service.Addr(), ServerPort: 53, Outcome: trace.OutcomeAnswered, Flags: []string{"aa", "rd", "ra"},
		Answers: []trace.Answer{{Type: "CNAME", Value: "web.example.com.", TTL: 30}, {Type: "A", Value: "192.0.2.1", TTL: 20}, {Type: "AAAA", Value: "2001:db8::1", TTL: 20}},
		Path: trace.PathOf(
			sighting(0, trace.MessageQuery, pod, service, "pod-a", "eth0", trace.DirectionTX),
			sighting(30*time.Microsecond, trace.MessageQuery, pod, coredns, "", "cni0", trace.DirectionRX),
			sighting(500*time.Microsecond, trace.MessageResponse, service, pod, "pod-a", "eth0", trace.DirectionRX),
			sighting(510*time.Microsecond, trace.MessageResponse, service, pod, "pod-a", "", trace.DirectionDelivered),
		),
	}
	ex.DNS = trace.DNS{ClientIP: pod.Addr(), ClientPort: pod.Port(), QName: "www.example.com.", QType: "A", QClass: "IN", Protocol: "udp", ID: 0xc1a1,
		RequestSize: 44, BufSize: 1232, DNSSECOK: true, RCode: "NOERROR", ResponseSize: &size}
	ex.Time = began
	t := &trace.Trace{Exchange: ex}
	t.Time, t.TraceID = began, trace.TraceID{0x6b, 1}
	return t
}

// dropped is an upstream query over TCP and IPv6 that a firewall dropped.
func dropped() *trace.Trace {
	src, dst := netip.MustParseAddrPort("[fd00::2]:40000"), netip.MustParseAddrPort("[fd00::9]:53")
	s := sighting(0, trace.MessageQuery, src, dst, "coredns", "eth0", trace.DirectionTX)
	s.Tunnel = &trace.Tunnel{Kind: "vxlan", Src: netip.MustParseAddrPort("192.0.2.1:4789"), Dst: netip.MustParseAddrPort("192.0.2.2:4789"), VNI: 5}
	s.VLAN = 9
	up := &trace.Exchange{Path: trace.PathOf(s), Outcome: trace.OutcomeDropped,
		Drops: []trace.Drop{{Where: "nft_do_chain", Reason: "NETFILTER_DROP", Description: "netfilter hook FORWARD", Message: trace.MessageQuery, NetNS: 4026532001, Offset: 7000}}}
	up.DNS = trace.DNS{QName: "a\\.b.test.", QType: "TYPE65280", QClass: "IN", Protocol: "tcp", ID: 7, BufSize: 65535}
	up.Time = began.Add(time.Second)
	t := answered()
	t.Upstreams = []trace.Upstream{{Exchange: up}}
	return t
}

// read is a packet as a reader of the file sees it.
type read struct {
	itf, comment string
	at           time.Time
	length       int
	packet       gopacket.Packet
}

func write(t *testing.T, captured Captured, traces ...*trace.Trace) []read {
	t.Helper()
	var file bytes.Buffer
	if err := writeAll(&file, captured, traces...); err != nil {
		t.Fatal(err)
	}
	ng, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []read
	for {
		data, info, options, err := ng.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		itf, err := ng.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, read{itf.Name, strings.Join(options.Comments, "|"), info.Timestamp.UTC(), info.Length, gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.Default)})
	}
}

func TestWrite(t *testing.T) {
	got := write(t, nil, answered())
	want := []struct {
		itf, src, dst, comment string
		at                     time.Duration
		length                 int
	}{
		{"pod-a/eth0", "10.244.0.4:50202", "10.96.0.10:53", "client query: pod-a/eth0, sent; headers rebuilt, message rebuilt from the record", 0, 28 + 44},
		{"4026532000/cni0", "10.244.0.4:50202", "10.244.0.2:53", "client query: 4026532000/cni0, received; headers", 30 * time.Microsecond, 28 + 44},
		{"pod-a/eth0", "10.96.0.10:53", "10.244.0.4:50202", "client response: pod-a/eth0, received; headers", 500 * time.Microsecond, 28 + 120},
	}
	if len(got) != len(want) {
		t.Fatalf("%d packets, expected %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		flow, ports := g.packet.NetworkLayer().NetworkFlow(), g.packet.TransportLayer().TransportFlow()
		src, dst := fmt.Sprintf("%s:%s", flow.Src(), ports.Src()), fmt.Sprintf("%s:%s", flow.Dst(), ports.Dst())
		if g.itf != w.itf || src != w.src || dst != w.dst || !strings.Contains(g.comment, "trace 6b010000000000000000000000000000, "+w.comment) || !g.at.Equal(began.Add(w.at)) || g.length != w.length {
			t.Errorf("packet %d: %s %s > %s at %s, %d bytes: %q\nexpected %+v", i, g.itf, src, dst, g.at, g.length, g.comment, w)
		}
	}
	var query, response dns.Msg
	if err := errors.Join(query.Unpack(got[0].packet.TransportLayer().LayerPayload()), response.Unpack(got[2].packet.TransportLayer().LayerPayload())); err != nil {
		t.Fatal(err)
	}
	if query.Id != 0xc1a1 || query.Response || query.Question[0].Name != "www.example.com." || query.IsEdns0() == nil || query.IsEdns0().UDPSize() != 1232 || !query.IsEdns0().Do() {
		t.Errorf("query\n%s", &query)
	}
	if len(response.Answer) != 3 || !response.Authoritative || response.Answer[1].Header().Name != "web.example.com." || response.Answer[1].Header().Ttl != 20 {
		t.Errorf("response\n%s", &response)
	}
}

// What the tracer still has goes before what can be made of the record; of
// retransmissions each has its own.
func TestCapturedMessages(t *testing.T) {
	tr := answered()
	late := tr.Exchange.Path.At(1)
	late.Offset = trace.Seconds(2 * time.Second)
	tr.Exchange.Path = trace.PathOf(tr.Exchange.Path.At(0), late, tr.Exchange.Path.At(2))
	got := write(t, func(_ *trace.Exchange, response bool) []Message {
		if response {
			return nil
		}
		return []Message{{began, []byte("first query..."), 14}, {began.Add(2 * time.Second), []byte("second, cut"), 300}}
	}, tr)
	for i, want := range []struct {
		payload, comment string
		length           int
	}{{"first query...", "message as captured", 28 + 14}, {"", "message rebuilt from the record", 28 + 120}, {"second, cut", "message as captured", 28 + 300}} {
		g := got[i]
		payload := g.packet.Data()[28:]
		if want.payload != "" && string(payload) != want.payload || g.length != want.length || !strings.HasSuffix(g.comment, want.comment) {
			t.Errorf("packet %d: %q, %d bytes, %q", i, payload, g.length, g.comment)
		}
	}
}

func TestDropAndTunnel(t *testing.T) {
	got := write(t, nil, dropped())
	if len(got) != 5 {
		t.Fatalf("%d packets", len(got))
	}
	for part, in := range map[string]string{
		"upstream 1 query: coredns/eth0, sent, VLAN 9, in a vxlan tunnel from 192.0.2.1:4789 to 192.0.2.2:4789, network 5;":                        got[3].comment,
		"upstream 1 query: 4026532001/(no device), DROPPED: NETFILTER_DROP at nft_do_chain, netfilter hook FORWARD; headers rebuilt, message rebu": got[4].comment,
	} {
		if !strings.Contains(in, part) {
			t.Errorf("no %q in %q", part, in)
		}
	}
	p := gopacket.NewPacket(got[3].packet.Data(), layers.LayerTypeIPv6, gopacket.Default)
	tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok || tcp.SrcPort != 40000 || len(tcp.Payload) < 2 || int(tcp.Payload[0])<<8|int(tcp.Payload[1]) != len(tcp.Payload)-2 {
		t.Fatalf("no message over TCP: %s", p)
	}
	var m dns.Msg
	if err := m.Unpack(tcp.Payload[2:]); err != nil || m.Question[0].Qtype != 65280 || m.Question[0].Name != `a\.b.test.` {
		t.Errorf("%v: %s", err, &m)
	}
}

func TestNothingSeen(t *testing.T) {
	var out bytes.Buffer
	if err := writeAll(&out, nil, &trace.Trace{Query: &trace.Query{}}); !errors.Is(err, errNothing) || out.Len() != 0 {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
}

// Records come from files of others: whatever is in them makes a file that can be
// read, or an error.
func FuzzWrite(f *testing.F) {
	for _, t := range []*trace.Trace{answered(), dropped()} {
		t.V, t.Record = trace.Version, trace.KindTrace
		t.Exchange.V, t.Exchange.Record = trace.Version, trace.KindExchange
		for _, u := range t.Upstreams {
			u.Exchange.V, u.Exchange.Record = trace.Version, trace.KindExchange
		}
		f.Add(t.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		rec, err := trace.Decode(line)
		if err != nil {
			return
		}
		tr, ok := rec.(*trace.Trace)
		if !ok {
			return
		}
		var file bytes.Buffer
		if err := writeAll(&file, nil, tr); err != nil {
			return
		}
		ng, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		for err == nil {
			_, _, err = ng.ReadPacketData()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

// Nodes give namespaces the same numbers: interfaces are distinguished by their node
// where there are several. An attempt's earlier queries are in the file too.
func TestNodesAndEarlierQueries(t *testing.T) {
	on := func(node string) *trace.Exchange {
		ex := answered().Exchange
		s := ex.Path.At(0)
		s.Node = node
		ex.Path = trace.PathOf(s)
		return ex
	}
	tr := answered()
	tr.Exchange = on("node-1")
	tr.Upstreams = []trace.Upstream{{Earlier: []*trace.Exchange{on("node-2")}, Exchange: on("node-2")}}
	var got []string
	for _, p := range write(t, nil, tr) {
		got = append(got, p.itf)
	}
	if want := []string{"node-1/pod-a/eth0", "node-2/pod-a/eth0", "node-2/pod-a/eth0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
