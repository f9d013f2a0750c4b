package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// half of the lookups: a wrong hash is wrong for every second of them.
var half = 0.5

// samplingVectors are those of package trace's documentation that a packet can have.
var samplingVectors = []struct {
	protocol uint8
	id, port uint16
	hash     uint32
}{
	{trace.TransportUDP, 0xc1a1, 50202, 0x405d4d1b},
	{trace.TransportUDP, 0x0000, 1, 0x688990c0},
	{trace.TransportUDP, 0xffff, 65535, 0x6768824a},
	{trace.TransportTCP, 0xa9ba, 44601, 0x51d32c72},
	{trace.TransportTCP, 0x0000, 44601, 0x51d32c72},
}

// envelopes are the ways in which a message goes from a port to another.
var envelopes = []struct {
	name     string
	protocol uint8
	frame    func(sport, dport uint64, message []byte) []byte
}{
	{"IPv4", trace.TransportUDP, func(s, d uint64, m []byte) []byte { return ethernet(etherIPv4, plain4.packet(udp(s, d, m))) }},
	{"IPv4 options", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv4, with4(plain4, func(h *ipv4) { h.options = make([]byte, 40) }).packet(udp(s, d, m)))
	}},
	{"IPv6", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv6, ipv6("2001:db8::1", "2001:db8::2", 17, udp(s, d, m)))
	}},
	{"IPv6 options", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv6, ipv6("2001:db8::1", "2001:db8::2", 60, extension(17, 0, udp(s, d, m))))
	}},
	{"802.1Q", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(0x8100, tag(5, etherIPv4, plain4.packet(udp(s, d, m))))
	}},
	{"VXLAN", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv4, node.packet(udp(12345, 4789, vxlan(77, ethernet(etherIPv4, plain4.packet(udp(s, d, m)))))))
	}},
	{"first fragment", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv4, with4(plain4, func(h *ipv4) { h.id, h.fragment = 99, 0x2000 }).packet(udp(s, d, m)))
	}},
	{"ICMP error", trace.TransportUDP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv4, router.packet(icmp(3, 3, 0, plain4.packet(udp(s, d, m)))))
	}},
	{"TCP", trace.TransportTCP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv4, tcp4(tcp(s, d, 7, FlagACK, nil, m)))
	}},
	{"TCP over IPv6", trace.TransportTCP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv6, ipv6("2001:db8::1", "2001:db8::2", 6, tcp(s, d, 7, FlagACK, nil, m)))
	}},
	{"TCP behind IPv4 options", trace.TransportTCP, func(s, d uint64, m []byte) []byte {
		return ethernet(etherIPv4, with4(plain4, func(h *ipv4) { h.protocol, h.options = 6, make([]byte, 4) }).packet(tcp(s, d, 7, FlagACK, nil, m)))
	}},
	{"TCP in a VLAN", trace.TransportTCP, func(s, d uint64, m []byte) []byte {
		return ethernet(0x8100, tag(5, etherIPv4, tcp4(tcp(s, d, 7, FlagACK, nil, m))))
	}},
}

// The programs compute the hash of the vectors from queries and from responses, whatever
// is around them: a packet is reported at a threshold equal to its hash, and not below.
func TestSamplingVectors(t *testing.T) {
	netns, run := testRun(t)
	source := openIn(t, netns)
	for _, e := range envelopes {
		for _, v := range samplingVectors {
			if v.protocol != e.protocol {
				continue
			}
			for _, response := range []bool{false, true} {
				m, sport, to := slices.Concat(be(2, uint64(v.id)), query[2:]), uint64(v.port), uint64(dport)
				if response {
					m[2] |= 0x80
					sport, to = to, sport
				}
				if e.protocol == trace.TransportTCP {
					m = slices.Concat(be(2, uint64(len(m))), m)
				}
				for threshold, in := range map[Threshold]bool{Threshold(v.hash): true, Threshold(v.hash - 1): false} {
					if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(threshold)); err != nil {
						t.Fatal(err)
					}
					before := source.Counters()
					if err := run(e.frame(sport, to, m)); err != nil {
						t.Fatalf("%s: %v", e.name, err)
					}
					after := source.Counters()
					// Sent, received and, as nobody wants it, dropped.
					reported, shed := after.Emitted-before.Emitted, after.Shed-before.Shed
					if in && (reported < 2 || shed > 0) || !in && (reported > 0 || shed < 2) {
						t.Errorf("%s, %+v, response %v, threshold %#x: %d reported, %d shed", e.name, v, response, threshold, reported, shed)
					}
				}
			}
		}
	}
}

// What shows no ID is reported whatever the threshold: a later fragment, and an ICMP error
// that quotes the ports and no more.
func TestSamplingWithoutAnID(t *testing.T) {
	netns, run := testRun(t)
	source := openIn(t, netns)
	first := with4(plain4, func(h *ipv4) { h.id, h.fragment = 4711, 0x2000 }).packet(udp(cport, dport, slices.Concat(query, make([]byte, 48-len(query)-8))))
	if err := run(ethernet(etherIPv4, first)); err != nil {
		t.Fatal(err)
	}
	poll(t, source)
	if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(0)); err != nil {
		t.Fatal(err)
	}
	for name, packet := range map[string][]byte{
		"a later fragment": with4(plain4, func(h *ipv4) { h.id, h.fragment = 4711, 6 }).packet(query),
		"the ports alone":  router.packet(icmp(3, 3, 0, plain[:28])),
	} {
		before := source.Counters()
		if err := run(ethernet(etherIPv4, packet)); err != nil {
			t.Fatal(err)
		}
		poll(t, source)
		if c := source.Counters(); c.Emitted < before.Emitted+2 || c.Shed != 0 {
			t.Errorf("%s: %+v, before it %+v", name, c, before)
		}
	}
}

// sampleEcho is a source that reports a sample and a server that it watches, which
// returns what it gets with the bit of a response set.
func sampleEcho(t *testing.T, ip net.IP, rate *float64) (*Source, *net.UDPConn) {
	t.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	source, err := openDevices(Config{Ports: []uint16{server.LocalAddr().(*net.UDPAddr).AddrPort().Port()}, Sample: rate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	client, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x80
			if _, err := server.WriteToUDPAddrPort(buf[:n], from); err != nil {
				return
			}
		}
	}()
	return source, client
}

// lookup sends a message and waits until it came back.
func lookup(t *testing.T, client *net.UDPConn, message []byte) {
	t.Helper()
	if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
}

// The programs report the lookups that the plugin records at the same rate: each of
// their packets, none of the others, and those are counted.
func TestSampleIsThePlugins(t *testing.T) {
	const lookups = 300
	for _, ip := range []string{"127.0.0.1", "::1"} {
		source, client := sampleEcho(t, net.ParseIP(ip), &half)
		port := client.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		for id := range uint16(lookups) {
			lookup(t, client, slices.Concat(be(2, uint64(id)), query[2:]))
		}
		seen := map[uint16]int{}
		for _, p := range poll(t, source) {
			seen[binary.BigEndian.Uint16(p.Payload)]++
		}
		out := uint64(0)
		for id := range uint16(lookups) {
			want := 4 // query and response, TX and RX on loopback
			if !trace.Sampled(trace.SamplingHash(trace.TransportUDP, id, port), half) {
				want, out = 0, out+4
			}
			if seen[id] != want {
				t.Errorf("%s: %d packets of lookup %d, expected %d", ip, seen[id], id, want)
			}
		}
		if c := source.Counters(); c.SampledOut != out || c.Lost+c.Shed != 0 || c.Emitted != 4*lookups-out || c.ReportedShare != 1 {
			t.Errorf("%s: %+v, expected %d sampled out", ip, c, out)
		}
	}
}

// Of a sample, load shedding takes a part: what is not in the sample stays out, and what
// is left out under load is counted by itself.
func TestSheddingOfASample(t *testing.T) {
	const lookups = 300
	source, client := sampleEcho(t, net.IPv4(127, 0, 0, 1), &half)
	port := client.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	threshold := thresholdOf(&half).times(0.5)
	if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(threshold)); err != nil {
		t.Fatal(err)
	}
	var reported, shed, out uint64
	for id := range uint16(lookups) {
		lookup(t, client, slices.Concat(be(2, uint64(id)), query[2:]))
		switch {
		case threshold.Selects(trace.TransportUDP, id, port):
			reported += 4
		case trace.Sampled(trace.SamplingHash(trace.TransportUDP, id, port), half):
			shed += 4
		default:
			out += 4
		}
	}
	if c := source.Counters(); c.Emitted != reported || c.Shed != shed || c.SampledOut != out || reported == 0 || shed == 0 {
		t.Errorf("%+v, expected %d reported, %d shed, %d sampled out", c, reported, shed, out)
	}
}

// A sample of nothing reports nothing.
func TestSampleOfNothing(t *testing.T) {
	none := 0.0
	source, client := sampleEcho(t, net.IPv4(127, 0, 0, 1), &none)
	for id := range uint16(20) {
		lookup(t, client, slices.Concat(be(2, uint64(id)), query[2:]))
	}
	if c := source.Counters(); c.Emitted+c.Shed != 0 || c.SampledOut != 80 || c.ReportedShare != 1 {
		t.Errorf("%+v", c)
	}
}

// Behind a translation of its port a client is sampled by the port that it used.
func TestSampleOfATranslatedClient(t *testing.T) {
	const lookups = 40
	var source *Source
	var client uint16
	unsupported := false
	inNewNamespace(t, func() error {
		server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer server.Close()
		if unsupported = !addRules("table ip t { chain p { type nat hook postrouting priority 100; udp dport %d snat to 127.0.0.77:2000-2999; }; }",
			server.LocalAddr().(*net.UDPAddr).Port); unsupported {
			return nil
		}
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		if source, err = openDevices(Config{Ports: []uint16{port}, NetNS: []string{fmt.Sprint(inode)}, Sample: &half}); err != nil {
			return err
		}
		conn, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer conn.Close()
		client = conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		for id := range uint16(lookups) {
			if _, err := conn.Write(slices.Concat(be(2, uint64(id)), query[2:])); err != nil {
				return err
			}
			_, from, err := server.ReadFromUDPAddrPort(make([]byte, 512))
			if err != nil {
				return err
			}
			if from.Addr().String() != "127.0.0.77" || from.Port() < 2000 || from.Port() > 2999 {
				return fmt.Errorf("the server sees %v", from)
			}
		}
		return nil
	})
	if unsupported {
		return
	}
	defer source.Close()
	seen := map[uint16]int{}
	for _, p := range poll(t, source) {
		seen[binary.BigEndian.Uint16(p.Payload)]++
	}
	for id := range uint16(lookups) {
		want := 0
		if trace.Sampled(trace.SamplingHash(trace.TransportUDP, id, client), half) {
			want = 2
		}
		if seen[id] != want {
			t.Errorf("%d packets of lookup %d, expected %d", seen[id], id, want)
		}
	}
}
