package integration

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// boundedGrowth is how much more memory of its own the tracer may have after an
// attack: its tables and blocks fill, and are bounded; an attack that is not would
// take gigabytes.
const boundedGrowth = 160 << 20

// floods is how often a cheap attack is repeated.
const floods = 3000

// hostileRig is a rig with an attacker, and lookups beside it.
type hostileRig struct {
	*rig
	*attacker
	tracer, server       *lab.Process
	metrics              string
	before, beforeServer int64 // their memory
	beside               int
}

// newHostileRig starts a tracer that observes the lab alone, and CoreDNS with these
// options of the plugin.
func newHostileRig(t *testing.T, options ...string) *hostileRig {
	r := &rig{lab.New(t, lab.Config{}), t}
	h := &hostileRig{rig: r, attacker: newAttacker(t, r.Host("client-b")), metrics: freeAddr(t)}
	args := append(onlyIn(r.Lab, lab.Node, lab.CoreDNS, lab.Upstream, "client-a", "client-b"), "--timeout", "2s", "--metrics", h.metrics)
	var err error
	if h.tracer, err = r.StartTracer(args...); err != nil {
		t.Fatal(err)
	}
	plugin := strings.TrimSuffix(toTracer(r.Lab), "}") + strings.Join(append(options, "}"), "\n")
	if h.server, err = r.StartCoreDNS(corefile(r.Lab, plugin)); err != nil {
		t.Fatal(err)
	}
	h.wholeBeside(t)
	h.before, h.beforeServer = anonymousMemory(t, h.tracer.Pid()), anonymousMemory(t, h.server.Pid())
	return h
}

// wholeBeside makes lookups as if nothing were until one is traced in whole. Each
// is answered, and one whose packets are not all there says so: a flood takes the
// rings until it is over.
func (h *hostileRig) wholeBeside(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if h.oneBeside(t) {
			return
		}
	}
	t.Error("no lookup was traced in whole any more")
}

func (h *hostileRig) oneBeside(t *testing.T) (whole bool) {
	t.Helper()
	h.beside++
	name := fmt.Sprintf("beside%d.test.", h.beside)
	res := h.answered(lab.Query{Name: name, RetransmitAfter: time.Second, Timeout: patience})
	if got := res.Answer.Answer; len(got) != 1 || !strings.HasSuffix(got[0].String(), lab.AddrA(name).String()) {
		t.Errorf("%s: another answer: %v", name, got)
	}
	tr := h.trace(name)
	if (tr.Exchange == nil || tr.Exchange.LostEvents > 0) && len(tr.Gaps) == 0 {
		t.Errorf("%s: packets are missing without a word: %+v", name, tr)
	}
	if tr.Query == nil || tr.Exchange == nil || tr.Exchange.LostEvents > 0 {
		return false // a record may be late, or be dropped and counted
	}
	if res.Transmissions > 1 {
		return false // CoreDNS's own socket was full
	}
	if tr.Outcome != trace.OutcomeAnswered || tr.RCode != "NOERROR" || len(tr.Diagnosis) != 0 {
		t.Errorf("%s: %s %s, findings %v, gaps %v", name, tr.Outcome, tr.RCode, findings(tr), tr.Gaps)
	}
	attacker := h.host
	for _, s := range tr.Exchange.Path.All() {
		if s.NetNSName == attacker.Netns || s.Src.Addr() == attacker.V4 {
			t.Errorf("%s: a packet of the attacker is taken for its own: %+v", name, s)
		}
	}
	return len(tr.Upstreams) == 1 && tr.Upstreams[0].Join == trace.JoinExact && len(tr.Gaps) == 0
}

// unharmed wants the tracer alive, of bounded memory, and a lookup beside it whole.
func (h *hostileRig) unharmed(t *testing.T) {
	t.Helper()
	h.wholeBeside(t)
	select {
	case <-h.tracer.Exited():
		t.Fatalf("the tracer ended\n%s", h.Outputs())
	default:
	}
	if now := anonymousMemory(t, h.tracer.Pid()); now > h.before+boundedGrowth {
		t.Errorf("the tracer has %d MiB of memory, %d before", now>>20, h.before>>20)
	}
	if now := anonymousMemory(t, h.server.Pid()); now > h.beforeServer+boundedGrowth {
		t.Errorf("CoreDNS has %d MiB of memory, %d before", now>>20, h.beforeServer>>20)
	}
}

// arrived wants an attack to have left its pod, and the tracer to have been handed so
// many packets of it, whether it could report them or not.
func (h *hostileRig) arrived(t *testing.T, attack func(), least int) {
	t.Helper()
	sent, left, handed := h.sent, h.transmitted(t), h.handed(t)
	attack()
	sent, left = h.sent-sent, h.transmitted(t)-left
	if sent == 0 || left < sent {
		t.Errorf("%d packets were sent, and %d left", sent, left)
	}
	got := h.handed(t) - handed
	for end := time.Now().Add(patience); got < least && time.Now().Before(end); got = h.handed(t) - handed {
		time.Sleep(50 * time.Millisecond)
	}
	if got < least {
		t.Errorf("the tracer was handed %d packets of %d, expected %d", got, sent, least)
	}
	t.Logf("%d packets sent, %d left, the tracer was handed %d, once for each place", sent, left, got)
}

// transmitted is how many packets have left the attacker's pod.
func (h *hostileRig) transmitted(t *testing.T) (n int) {
	t.Helper()
	err := h.host.Do(func() error {
		device, err := netlink.LinkByName("eth0")
		if err == nil {
			n = int(device.Attrs().Statistics.TxPackets)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// handed is how many packets the tracer has seen, lost or left out so far.
func (h *hostileRig) handed(t *testing.T) (sum int) {
	t.Helper()
	for line := range strings.Lines(scrape(t, h.metrics)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "dnstrace_events_total", "dnstrace_lost_events_total", "dnstrace_shed_events_total":
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += int(n)
		}
	}
	return sum
}

// anonymousMemory is what a process has that is of no file (proc_pid_status(5)).
func anonymousMemory(t *testing.T, pid int) int64 {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(string(content), "RssAnon:")
	n, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// Whatever a pod sends: no crash, bounded memory, and the lookups of others whole.
func TestHostilePackets(t *testing.T) {
	h := newHostileRig(t)
	coredns, me, me6 := h.Host(lab.CoreDNS), h.host.V4, h.host.V6
	good := question(t, "hostile.test.", 99)
	fromMe := func(protocol byte) ipv4 { return ipv4{src: me, dst: coredns.V4, protocol: protocol} }
	for _, tc := range []struct {
		name   string
		least  int // packets of it that the tracer is handed
		attack func(t *testing.T)
	}{
		{"messages over UDP", 40, func(*testing.T) {
			for _, m := range hostileMessages {
				h.datagram(lab.ServiceV4, m, response(m))
				h.datagram(lab.ServiceV6, m, response(m))
			}
		}},
		{"messages to a client's socket", 40, func(*testing.T) {
			for _, m := range hostileMessages {
				h.raw(ipv4{src: me, dst: h.Host("client-a").V4, protocol: 17}.packet(udpHeader(53, 40000, response(m))))
			}
		}},
		{"messages over TCP", 40, func(*testing.T) {
			for _, m := range hostileMessages {
				h.stream(framed(m))
			}
		}},
		{"the largest messages", 4, func(t *testing.T) {
			huge := append(bytes.Clone(good), make([]byte, 65507-len(good))...) // what UDP over IPv4 can carry
			h.datagram(lab.ServiceV4, huge, response(huge))
			huge = append(huge, make([]byte, 65535-len(huge))...)
			h.stream(framed(huge))
			h.stream(be16(0), be16(0), be16(0), framed(good))
		}},
		{"IPv4 options", 20, func(*testing.T) {
			for words := range 10 {
				options := bytes.Repeat([]byte{1}, 4*(words+1)) // no operation
				p := fromMe(17)
				p.options = options
				h.raw(p.packet(udpHeader(5000, 53, good)))
				p.options = slices.Concat([]byte{7, byte(len(options)), 4}, options[3:]) // record the route
				h.raw(p.packet(udpHeader(5000, 53, good)))
			}
		}},
		{"IPv4 headers that lie", 10, func(*testing.T) {
			for words := range 16 {
				p := fromMe(17)
				p.words = words
				h.raw(p.packet(udpHeader(5000, 53, good)))
			}
			for _, length := range []int{0, 7, 8, 19, 20, 9000, 65535} {
				u := udpHeader(5000, 53, good)
				copy(u[4:], be16(length))
				h.raw(fromMe(17).packet(u))
			}
			for n := range 20 {
				h.raw(fromMe(17).packet(udpHeader(5000, 53, good)[:n]))
				h.raw(fromMe(6).packet(make([]byte, n)))
			}
		}},
		{"IPv6 extension headers", 10, func(*testing.T) {
			u := udpHeader(5000, 53, good)
			chain, next := u, byte(17)
			for range 20 {
				chain, next = extension(next, chain), destination
				h.raw(ipv6(me6, coredns.V6, next, chain))
				h.raw(ipv6(me6, coredns.V6, hopByHop, extension(next, chain)))
				h.raw(ipv6(me6, coredns.V6, routing, extension(next, chain)))
			}
			chain, next = u, 17
			for range 20 {
				chain, next = fragment6(next, 0, false, 1, chain), fragmentHdr
				h.raw(ipv6(me6, coredns.V6, next, chain))
			}
			h.raw(ipv6(me6, coredns.V6, destination, []byte{17, 255}))
			h.raw(ipv6(me6, coredns.V6, destination, extension(destination, nil)))
		}},
		{"overlapping fragments", 100, func(*testing.T) {
			large := udpHeader(5000, 53, append(bytes.Clone(good), make([]byte, 400)...))
			for id := 1; id < 50; id++ {
				for _, piece := range []struct{ from, to, more int }{
					{0, 200, moreFragments}, {0, 200, moreFragments}, {8, 208, moreFragments}, {104, len(large) &^ 7, 0}, {200, len(large), 0},
					{0, 8, moreFragments}, {65528, 65528, 0},
				} {
					p := fromMe(17)
					p.id, p.fragment = id, piece.from/8|piece.more
					h.raw(p.packet(large[min(piece.from, len(large)):min(piece.to, len(large))]))
					h.raw(ipv6(me6, coredns.V6, fragmentHdr, fragment6(17, piece.from, piece.more != 0, byte(id), large[min(piece.from, len(large)):min(piece.to, len(large))])))
				}
			}
		}},
		{"many datagrams of one query", 2 * floods, func(*testing.T) {
			p := fromMe(17)
			p.fragment = moreFragments
			for id := range 2 * floods {
				p.id = 1 + id
				h.raw(p.packet(udpHeader(5000, 53, append(bytes.Clone(good), make([]byte, 8)...))))
			}
		}},
		{"segments of no connection", floods / 2, func(*testing.T) {
			for i := range floods {
				segment := slices.Concat(be16(1024+i), be16(53), be16(i), be16(i*7), be16(0), be16(0), []byte{byte(i%11) << 4, byte(i)}, be16(1024), be16(0), be16(0), framed(good))
				h.raw(fromMe(6).packet(segment))
			}
		}},
		{"one port and ID, other names at speed", floods, func(t *testing.T) {
			for i := range floods {
				h.raw(fromMe(17).packet(udpHeader(5353, 53, question(t, fmt.Sprintf("speed%d.test.", i), 7))))
			}
		}},
		{"one port and ID, one name at speed", floods, func(*testing.T) {
			for range floods {
				h.raw(fromMe(17).packet(udpHeader(5354, 53, good)))
			}
		}},
		{"every address as its own", floods, func(*testing.T) {
			for i := range floods {
				p := fromMe(17)
				p.src = netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
				h.raw(p.packet(udpHeader(uint16(1024+i), 53, good)))
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h.arrived(t, func() { tc.attack(t) }, tc.least)
			h.unharmed(t)
		})
	}
	if err := h.tracer.Stop(); err != nil {
		t.Error(err)
	}
	// All of them can be read, none has grown without bound, and none has a part of
	// another, though one port and ID asked for thousands of names.
	for _, rec := range h.records() {
		switch rec := rec.(type) {
		case *trace.Exchange:
			if rec.Path.Len() > maxPath {
				t.Errorf("%s: %d sightings", rec.QName, rec.Path.Len())
			}
		case *trace.Trace:
			wholeAndRight(t, rec)
		}
	}
}

// maxPath is what an exchange may have of sightings, as tracer/exchange bounds it.
const maxPath = 256
