package capture

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// openDevices opens a source that sees packets at devices, and not at sockets.
func openDevices(cfg Config) (*Source, error) {
	return open(cfg, kernelPayloadAccess(), arrivalNone)
}

// exercise sends n queries over loopback to a socket that reads them, before the
// eyes of a new source.
func exercise(t *testing.T, ringBytes, n int) (source *Source, server, client netip.AddrPort) {
	t.Helper()
	return exerciseThreshold(t, ringBytes, n, AllLookups)
}

// exerciseThreshold does so while only the lookups up to a threshold are reported, with
// another ID in each query.
func exerciseThreshold(t *testing.T, ringBytes, n int, threshold Threshold) (source *Source, server, client netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sender, err := net.DialUDP("udp4", nil, conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	server = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	source, err = openDevices(Config{Ports: []uint16{server.Port()}, RingBytes: ringBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	query, err := new(dns.Msg).SetQuestion("capture.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(threshold)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	for id := range n {
		binary.BigEndian.PutUint16(query, uint16(id))
		if _, err := sender.Write(query); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	return source, server, sender.LocalAddr().(*net.UDPAddr).AddrPort()
}

// poll reads until every packet must have been delivered.
func poll(t *testing.T, s *Source) []Packet {
	t.Helper()
	var all []Packet
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		if _, err := s.Poll(func(p *Packet) {
			c := *p
			c.Payload = append([]byte(nil), p.Payload...)
			if p.ICMP != nil {
				p.ICMP.Payload = append([]byte(nil), p.ICMP.Payload...)
			}
			all = append(all, c)
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Each packet is seen twice on loopback, in order of time, by its sender.
func TestPacketsInOrder(t *testing.T) {
	before := Now()
	source, server, client := exercise(t, 0, 500)
	packets := poll(t, source)
	if len(packets) != 1000 {
		t.Fatalf("%d packets, expected 1000", len(packets))
	}
	last := before
	kinds := map[Kind]int{}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	proven := provesProcess(kernel)
	for _, p := range packets {
		if p.Time < last {
			t.Fatal("not in order of time")
		}
		last = p.Time
		kinds[p.Kind]++
		if p.Src != client || p.Dst != server || p.Protocol != trace.TransportUDP || p.IfName != "lo" || p.PayloadLen != len(p.Payload) {
			t.Fatalf("%+v", p)
		}
		if p.Kind == TX && proven && (p.PID != os.Getpid() || p.Comm == "") {
			t.Fatalf("sent by process %d %q", p.PID, p.Comm)
		}
		if own := ownCgroup(t); p.Kind == TX && own != 0 && p.CgroupID != own {
			t.Fatalf("sent from cgroup %d, expected %d", p.CgroupID, own)
		}
	}
	if kinds[TX] != 500 || kinds[RX] != 500 {
		t.Errorf("%v", kinds)
	}
	if c := source.Counters(); c.Emitted != 1000 || c.Lost != 0 || c.Shed != 0 || c.ReportedShare != 1 {
		t.Errorf("%+v", c)
	}
}

// However full the rings are, a poll passes on all of it in order of time, and holds little of
// it at once.
func TestPollOfFullRings(t *testing.T) {
	const queries = 5000
	source, _, _ := exercise(t, 0, queries)
	time.Sleep(20 * time.Millisecond)
	waiting := 0
	for _, r := range source.rings {
		waiting += r.AvailableBytes()
	}
	if waiting < 2*chunkBytes {
		t.Fatalf("%d bytes wait in the rings: expected several chunks of %d", waiting, chunkBytes)
	}
	n, last := 0, int64(0)
	upTo, err := source.Poll(func(p *Packet) {
		if p.Time < last {
			t.Fatal("not in order of time")
		}
		n, last = n+1, p.Time
	})
	if err != nil || n != 2*queries || last > upTo {
		t.Errorf("%v; %d packets up to %d, expected %d up to %d", err, n, last, 2*queries, upTo)
	}
	if held := cap(source.pending.data); held > 4*chunkBytes {
		t.Errorf("%d bytes are held for %d that waited", held, waiting)
	}
}

// ownCgroup returns the inode of this process's cgroup, 0 without cgroup2.
func ownCgroup(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var fs unix.Statfs_t
			var st unix.Stat_t
			if unix.Statfs(mount, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Stat(mount+path, &st) == nil {
				return st.Ino
			}
		}
	}
	return 0
}

// A query to a port that nobody listens on: the drop says where, and on Linux
// 5.17 and later why.
func TestDrop(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	closed := conn.LocalAddr().(*net.UDPAddr)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	source, err := openDevices(Config{Ports: []uint16{uint16(closed.Port)}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	sender, err := net.DialUDP("udp4", nil, closed)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if _, err := sender.Write(make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	for _, p := range poll(t, source) {
		if p.Kind != Drop {
			continue
		}
		if p.Where != "__udp4_lib_rcv" && p.Where != "udp_rcv" && p.Where != "" || kernelAtLeast(5, 17) && p.Reason != "NO_SOCKET" {
			t.Errorf("dropped in %q because of %q", p.Where, p.Reason)
		}
		want := "no socket"
		if p.Reason == "" {
			want = dropreason.Of("", "__udp4_lib_rcv").Description
		}
		if p.Description != want && p.Where != "" {
			t.Errorf("in words: %q", p.Description)
		}
		return
	}
	t.Error("no drop")
}

// A TCP connection that nobody accepts: its SYN has no question, and its drop is
// seen all the same.
func TestDropOfAConnection(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	source, err := openDevices(Config{Ports: []uint16{uint16(closed.Port)}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if conn, err := net.DialTCP("tcp4", nil, closed); err == nil {
		conn.Close()
		t.Fatal("somebody listens")
	}
	for _, p := range poll(t, source) {
		if p.Kind == Drop && p.Opens() {
			want := "no socket"
			if p.Reason == "" {
				want = dropreason.Of("", "tcp_v4_rcv").Description
			}
			if p.Dst != closed.AddrPort() || p.Description != want && p.Where != "" {
				t.Errorf("%+v", p)
			}
			return
		}
	}
	t.Error("no drop")
}

// A ring that is too small loses events, and every one is counted.
func TestLossIsCounted(t *testing.T) {
	before := Now()
	source, _, _ := exercise(t, 4096, 500)
	delivered := uint64(len(poll(t, source)))
	c := source.Counters()
	emitted, lost := c.Emitted, c.Lost
	if lost == 0 || delivered != emitted || emitted+lost != 1000 {
		t.Errorf("delivered %d, emitted %d, lost %d; expected 1000 in all", delivered, emitted, lost)
	}
	byKind := map[Kind]uint64{}
	for _, l := range source.Losses() {
		byKind[l.Kind] += l.Events
		if l.First < before || l.Last < l.First || l.Last > Now() {
			t.Errorf("lost out of time: %+v", l)
		}
	}
	if byKind[TX] == 0 || byKind[RX] == 0 || byKind[TX]+byKind[RX] != lost {
		t.Errorf("by program: %v, in all %d", byKind, lost)
	}
	if again := source.Losses(); len(again) != 0 {
		t.Errorf("reported twice: %v", again)
	}
}

// Runs that the kernel left out are reported once, and as lost at a time.
func TestMissesAreReportedOnce(t *testing.T) {
	r := newLossReader(1)
	r.asked = 100
	const program = bpf.DnstraceProgKfreeSkb
	r.miss(program, 0, 200)
	r.miss(program, 3, 200)
	r.asked = 200
	r.miss(program, 5, 300)
	if got, want := r.pending[Drop], (Loss{Kind: Drop, CPU: -1, Events: 5, First: 100, Last: 300}); got != want || r.missed[program] != 5 {
		t.Errorf("%+v, expected %+v", got, want)
	}
}

// Two tracers on one node do not disturb each other.
func TestTwoSources(t *testing.T) {
	// A port held by a silent socket: other tests of this machine send to a fixed one.
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	second, err := openDevices(Config{Ports: []uint16{silent.LocalAddr().(*net.UDPAddr).AddrPort().Port()}})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first, _, _ := exercise(t, 0, 10)
	if n := len(poll(t, first)); n != 20 {
		t.Errorf("%d packets, expected 20", n)
	}
	if n := len(poll(t, second)); n != 0 {
		t.Errorf("%d packets on a port that nobody uses", n)
	}
}

func TestOpenRefusesPorts(t *testing.T) {
	for _, ports := range [][]uint16{nil, make([]uint16, MaxPorts+1)} {
		if _, err := Open(Config{Ports: ports}); err == nil || !strings.Contains(err.Error(), "expected 1 to 8 ports") {
			t.Errorf("%d ports: %v", len(ports), err)
		}
	}
}

func TestRingsAreBoundedTogether(t *testing.T) {
	for cpus, want := range map[int]int{1: 4 << 20, 16: 4 << 20, 17: 2 << 20, 128: 512 << 10, 4096: 256 << 10} {
		if got := defaultRingBytes(cpus); got != want {
			t.Errorf("%d CPUs: %d bytes, want %d", cpus, got, want)
		}
	}
}

// The time of a moment lies between two readings of the system's clock around it, but
// for the error that the clock states.
func TestClock(t *testing.T) {
	var c Clock
	for range 100 {
		c.Sync()
		before := time.Now()
		got := c.Wall(Now())
		after := time.Now()
		within := c.Within()
		if within <= 0 || got.Before(before.Add(-within-slewed)) || got.After(after.Add(within+slewed)) {
			t.Fatalf("%s is not between %s and %s, give or take %s", got, before, after, within)
		}
	}
}

// slewed is what the system's time may move against the monotonic clock between a Sync
// and the next reading, where it is being adjusted (adjtimex(2): at most 0.5 ms a second),
// on a machine that stalls for a tenth of a second meanwhile.
const slewed = 50 * time.Microsecond

const everyPart = 2*partWaited - 1

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, eventSize+64))
	all := bpf.DnstraceEvent{Parts: everyPart, Kind: uint8(Drop), IpVersion: 4, Captured: 12}
	f.Add(append(bytes.Clone(bytesOf(&all)), make([]byte, 512)...))
	for _, m := range hostileMessages(f) {
		for _, parts := range []uint16{0, everyPart} {
			e := bpf.DnstraceEvent{Kind: uint8(TX), IpVersion: 6, Captured: uint16(len(m)), Parts: parts}
			f.Add(append(bytes.Clone(bytesOf(&e)), m...))
			e.Skip = 200 // the payload behind the parts
			f.Add(slices.Concat(bytesOf(&e), make([]byte, e.Skip), m))
		}
	}
	d := decoder{names: map[[16]int8]string{}, netns: newNamespaces(f.TempDir()), symbols: newSymbols(os.DevNull)}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p Packet
		if err := d.decode(&p, raw); err == nil && len(p.Payload) > len(raw) {
			t.Fatal("more payload than there is")
		}
	})
}
