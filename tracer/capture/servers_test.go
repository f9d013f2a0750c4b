package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// section is memory like that of the programs.
type section struct {
	memory []byte
	now    int64
}

func newSection(ports ...uint16) (*servers, *section) {
	m := &section{memory: make([]byte, unsafe.Sizeof(bpf.DnstraceKnownServers{})), now: int64(time.Hour)}
	s := newServers(ports, func(b []byte, at uintptr) { copy(m.memory[at:], b) })
	s.now = func() int64 { return m.now }
	return s, m
}

// has tells whether the programs would find a server.
func (m *section) has(a netip.AddrPort) bool {
	known := (*bpf.DnstraceKnownServers)(unsafe.Pointer(&m.memory[0]))
	key := serverKey(a)
	if known.Classes[int(a.Port())%portClasses] == 0 {
		return false
	}
	for i := range uint32(knownProbes) {
		if k := known.Servers[(hashOf(&key)+i)%uint32(knownServers)]; k.Port == key.Port && k.Addr == key.Addr {
			return true
		}
	}
	return false
}

func TestServers(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("10.244.0.2:5353"), netip.MustParseAddrPort("[fd00::2]:5353")
	mapped := netip.MustParseAddrPort("[::ffff:10.244.0.2]:5353")
	s, m := newSection(53, 54)
	check := func(when string, want ...netip.AddrPort) {
		t.Helper()
		for _, a := range []netip.AddrPort{v4, v6} {
			if in := slices.Contains(want, a); s.IsServer(a) != in || m.has(a) != in {
				t.Errorf("%s: %s: a server %v, to the programs %v, want %v", when, a, s.IsServer(a), m.has(a), in)
			}
		}
		if s.IsServer(mapped) != s.IsServer(v4) {
			t.Errorf("%s: the mapped address is another", when)
		}
		if other := netip.MustParseAddrPort("10.244.0.3:5353"); s.IsServer(other) || m.has(other) {
			t.Errorf("%s: every address with the port is a server", when)
		}
		if any := netip.MustParseAddrPort("192.0.2.1:54"); !s.IsServer(any) {
			t.Errorf("%s: a port that is observed is none", when)
		}
	}
	check("at first")
	s.list([]netip.AddrPort{mapped, v6, netip.MustParseAddrPort("10.244.0.9:53"), netip.MustParseAddrPort("10.244.0.3:0")})
	check("listed", v4, v6)
	s.list([]netip.AddrPort{v6})
	check("one of them", v6)
	s.list(nil)
	check("listed no more")
	// What the programs found themselves is not added to their map.
	s.saw(v4, m.now)
	m.now += keepServer - 1
	s.renew()
	if !s.IsServer(v4) || m.has(v4) {
		t.Errorf("seen: a server %v, added %v", s.IsServer(v4), m.has(v4))
	}
	m.now += keepServer
	s.renew()
	check("old")
}

// The table has a bound, and places that are free again are reused.
func TestManyServers(t *testing.T) {
	s, m := newSection(53)
	addr := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 5353)
	}
	var all []netip.AddrPort
	for i := range 1024 {
		all = append(all, addr(i))
	}
	for range 3 {
		s.list(all)
		found := 0
		for _, a := range all {
			if !s.IsServer(a) {
				t.Fatalf("%s is listed", a)
			}
			if m.has(a) {
				found++
			}
		}
		if found < 1020 {
			t.Errorf("the programs find %d of %d", found, len(all))
		}
		s.list(all[:1])
		if m.has(all[1]) || len(s.slots) != 1 {
			t.Errorf("%d places are taken", len(s.slots))
		}
	}
	for i := range 2 * knownServers {
		s.saw(addr(i), m.now)
	}
	if len(s.proven) > knownServers {
		t.Errorf("%d are remembered", len(s.proven))
	}
}

func TestServerSockets(t *testing.T) {
	s, m := newSection(53)
	known := (*bpf.DnstraceKnownServers)(unsafe.Pointer(&m.memory[0]))
	s.bind(7, 53)
	s.bind(0, 5353)
	if known.Sockets[0].Netns != 0 {
		t.Errorf("socket %+v", known.Sockets[0])
	}
	s.bind(7, 5353)
	s.bind(7, 5353)
	if k := known.Sockets[0]; k.Netns != 7 || k.Port != 5353 || known.Sockets[1].Netns != 0 || known.Classes[5353%portClasses] == 0 {
		t.Errorf("sockets %+v", known.Sockets[:2])
	}
	for i := range uint16(2 * maxOfNetns) {
		s.bind(8, 5353+i)
	}
	if n := len(s.sockets); n != 1+maxOfNetns {
		t.Errorf("one namespace has %d of %d", n-1, maxSockets)
	}
	for i := range uint32(2 * maxSockets) {
		s.bind(100+i, 5353)
	}
	if len(s.sockets) > maxSockets {
		t.Errorf("%d are remembered", len(s.sockets))
	}
	if known.Sockets[maxSockets-1].Netns == 0 {
		t.Error("there is room left")
	}
	m.now += keepServer
	s.renew()
	if known.Sockets[0].Netns != 0 || len(s.sockets) != 0 {
		t.Errorf("socket %+v is kept", known.Sockets[0])
	}
}

// Of a server that was learned, the packets are seen, and which end it is; those of another
// address with its port are not, nor those of before and after.
func TestLearnedServer(t *testing.T) {
	const port = 61055
	netns, run := testRun(t)
	source := openIn(t, netns)
	v4, v6 := netip.MustParseAddrPort("192.0.2.2:61055"), netip.MustParseAddrPort("[2001:db8::2]:61055")
	other := with4(plain4, func(h *ipv4) { h.dst = "192.0.2.3" })
	seen := func(frame []byte) (tx int, p Packet) {
		t.Helper()
		if err := run(frame); err != nil {
			t.Fatal(err)
		}
		for _, q := range poll(t, source) {
			if q.Kind == TX {
				tx, p = tx+1, q
			}
		}
		return tx, p
	}
	for _, e := range envelopes {
		frame := e.frame(cport, port, slices.Concat(be(2, uint64(len(query))), query))
		if n, _ := seen(frame); n != 0 {
			t.Errorf("%s: seen before it was learned", e.name)
		}
		source.ListServers([]netip.AddrPort{v4, v6})
		if n, p := seen(frame); n != 1 || p.SrcServer || !p.DstServer {
			t.Errorf("%s: %d packets to it, from a server %v, to a server %v", e.name, n, p.SrcServer, p.DstServer)
		}
		if n, _ := seen(e.frame(cport, port+portClassesApart, query)); n != 0 {
			t.Errorf("%s: a port of the same class is seen", e.name)
		}
		source.servers.now = func() int64 { return Now() + 2*keepServer }
		source.ListServers(nil)
		source.servers.renew()
		source.servers.now, source.servers.looked = Now, 0
		if n, _ := seen(frame); n != 0 {
			t.Errorf("%s: seen after it was forgotten", e.name)
		}
	}
	source.ListServers([]netip.AddrPort{v4})
	if n, p := seen(ethernet(etherIPv4, ipv4{src: "192.0.2.2", dst: "192.0.2.1", protocol: 17}.packet(udp(port, cport, query)))); n != 1 || !p.SrcServer || p.DstServer {
		t.Errorf("%d packets from it, from a server %v, to a server %v", n, p.SrcServer, p.DstServer)
	}
	if n, _ := seen(ethernet(etherIPv4, other.packet(udp(cport, port, query)))); n != 0 {
		t.Error("another address is seen")
	}
	if !source.Ports().IsServer(v4) || source.Ports().IsServer(v6) || !source.Ports().IsServer(server) {
		t.Error("Ports does not know what was learned")
	}
}

// portClassesApart is how far two ports of one class are apart.
const portClassesApart = -4096

// withAddress runs f in a new namespace that has 192.0.2.9 beside loopback's own addresses.
func withAddress(t *testing.T, f func(netns string) error) {
	t.Helper()
	inNewNamespace(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("192.0.2.9/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		return f(fmt.Sprint(inode))
	})
}

// ask sends a query with that ID to a server, which answers it, over UDP.
func ask(server *net.UDPConn, to netip.AddrPort, id uint16) error {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(slices.Concat(be(2, uint64(id)), query[2:])); err != nil {
		return err
	}
	buf := make([]byte, 512)
	n, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil {
		return err
	}
	buf[2] |= 0x80
	if _, err := server.WriteToUDPAddrPort(buf[:n], from); err != nil {
		return err
	}
	_, err = conn.Read(buf)
	return err
}

// The target of a translation of an observed port is a server from the first packet on,
// also where connection tracking does not show the translation.
func TestServerBehindATranslation(t *testing.T) {
	const service = 61153
	var source *Source
	var at netip.AddrPort
	unsupported := false
	withAddress(t, func(netns string) error {
		server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9)})
		if err != nil {
			return err
		}
		defer server.Close()
		at = server.LocalAddr().(*net.UDPAddr).AddrPort()
		if unsupported = !addRules("table ip t { chain o { type nat hook output priority -100; udp dport %d dnat to 192.0.2.9:%d; }; }",
			service, at.Port()); unsupported {
			return nil
		}
		if source, err = openDevices(Config{Ports: []uint16{service}, NetNS: []string{netns}}); err != nil {
			return err
		}
		for id, to := range []netip.AddrPort{at, netip.AddrPortFrom(at.Addr(), service), at} {
			if err := ask(server, to, uint16(id)); err != nil {
				return err
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
		id, response := binary.BigEndian.Uint16(p.Payload), p.Payload[2]&0x80 != 0
		seen[id]++
		if p.SrcServer != response || p.DstServer == response {
			t.Errorf("lookup %d, response %v, %s > %s: from a server %v, to a server %v", id, response, p.Src, p.Dst, p.SrcServer, p.DstServer)
		}
	}
	if want := map[uint16]int{1: 4, 2: 4}; seen[0] != 0 || seen[1] != want[1] || seen[2] != want[2] {
		t.Errorf("packets by lookup: %v, expected %v", seen, want)
	}
	if !source.Ports().IsServer(at) {
		t.Errorf("%s is no server", at)
	}
}

// Of a server that binds a port alone, the address is learned when it sends.
func TestServerOfASocket(t *testing.T) {
	var source *Source
	var at netip.AddrPort
	withAddress(t, func(netns string) error {
		server, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer server.Close()
		at = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), server.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		if source, err = openDevices(Config{Ports: []uint16{dport}, NetNS: []string{netns}}); err != nil {
			return err
		}
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if err := ask(server, at, 0); err != nil {
			return err
		}
		source.LearnSocket(inode, at.Port())
		for id := uint16(1); id <= 2; id++ {
			if err := ask(server, at, id); err != nil {
				return err
			}
		}
		// Every namespace has its own loopback.
		loopback := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
		for id := uint16(3); id <= 4; id++ {
			if err := ask(server, loopback, id); err != nil {
				return err
			}
		}
		return nil
	})
	defer source.Close()
	seen := map[uint16]int{}
	for _, p := range poll(t, source) {
		seen[binary.BigEndian.Uint16(p.Payload)]++
	}
	// Of the first lookup after the programs learned it, the response.
	if want := map[uint16]int{1: 2, 2: 4}; seen[1] != want[1] || seen[2] != want[2] || len(seen) != 2 {
		t.Errorf("packets by lookup: %v, expected %v", seen, want)
	}
	if !source.Ports().IsServer(at) {
		t.Errorf("%s is no server", at)
	}
}

// A connection to a server that was learned is sampled by its client's port in both
// directions.
func TestSamplingOfALearnedServer(t *testing.T) {
	const port = 61055
	netns, run := testRun(t)
	source := openIn(t, netns)
	source.ListServers([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:61055")})
	threshold := Threshold(trace.SamplingHash(trace.TransportTCP, 0, cport))
	for _, s := range []Threshold{threshold, threshold - 1} {
		if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(s)); err != nil {
			t.Fatal(err)
		}
		for _, segment := range [][]byte{
			tcp4(tcp(cport, port, 7, FlagACK, nil, query)),
			ipv4{src: "192.0.2.2", dst: "192.0.2.1", protocol: 6}.packet(tcp(port, cport, 7, FlagACK, nil, query)),
		} {
			before := source.Counters()
			if err := run(ethernet(etherIPv4, segment)); err != nil {
				t.Fatal(err)
			}
			after := source.Counters()
			if in := s == threshold; (after.Emitted > before.Emitted) != in || (after.Shed > before.Shed) == in {
				t.Errorf("threshold %#x: before %+v, after %+v", s, before, after)
			}
		}
	}
}
