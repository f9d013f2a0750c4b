package capture

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// A threshold selects as many lookups as it should, a subset of those of a higher one and
// of a sample at the same rate (package trace tests that both are even).
func TestThresholdSelects(t *testing.T) {
	const lookups = 4096
	for _, part := range []float64{1, 0.5, 0.1, 1.0 / 256, 0} {
		threshold, in := AllLookups.times(part), 0
		for id := range uint16(lookups) {
			if !threshold.Selects(trace.TransportUDP, id, 40000) {
				continue
			}
			in++
			if !AllLookups.times(min(1, part*1.5)).Selects(trace.TransportUDP, id, 40000) {
				t.Errorf("ID %d is in %v, but not in one and a half times as much", id, part)
			}
			if part > 0 && !trace.Sampled(trace.SamplingHash(trace.TransportUDP, id, 40000), part) {
				t.Errorf("ID %d is in %v, but not in the sample at this rate", id, part)
			}
		}
		if want := lookups * part; math.Abs(float64(in)-want) > 5*math.Sqrt(want*(1-part)) {
			t.Errorf("%d of %d are selected, expected a part of %v", in, lookups, part)
		}
	}
	// All that is asked on a connection is reported, or nothing.
	for port := uint16(30000); port < 31000; port++ {
		if threshold := AllLookups / 3; threshold.Selects(trace.TransportTCP, 1, port) != threshold.Selects(trace.TransportTCP, 2, port) {
			t.Errorf("TCP port %d: one ID only", port)
		}
	}
}

func TestThresholdOf(t *testing.T) {
	tiny := 1e-12
	for name, tc := range map[string]struct {
		rate *float64
		want Threshold
	}{"all": {nil, AllLookups}, "half": {&half, AllLookups / 2}, "nearly none": {&tiny, 0}} {
		if got := thresholdOf(tc.rate); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
	if got := AllLookups.times(0.25).fractionOf(AllLookups); got != 0.25 {
		t.Errorf("a quarter is %v", got)
	}
}

func TestShedder(t *testing.T) {
	percent := 0.01
	type poll struct {
		after       time.Duration
		used        float64
		taken, lost uint64
		want        float64 // of what is reported without load
	}
	for name, polls := range map[string][]poll{
		"enough room": {{20 * time.Millisecond, 0.7, 1000, 0, 1}, {2 * time.Second, 0.05, 1000, 0, 1}},
		"nearly full, then calm": {
			{20 * time.Millisecond, 0.8, 1000, 0, 0.625}, // half of the ring is 0.5 of 0.8
			{20 * time.Millisecond, 0.5, 1000, 0, 0.625},
			{400 * time.Millisecond, 0.05, 1000, 0, 0.625},
			{100 * time.Millisecond, 0.25, 1000, 0, 1},
		},
		"full, and more was lost than taken": {{20 * time.Millisecond, 1, 1000, 3000, 0.125}},
		"nothing was taken":                  {{20 * time.Millisecond, 1, 0, 1 << 40, minFraction}},
		"no further down": {
			{20 * time.Millisecond, 1, 1, 1 << 20, minFraction},
			{20 * time.Millisecond, 1, 1, 1 << 20, minFraction},
		},
		"not calm for long enough": {
			{20 * time.Millisecond, 1, 1000, 3000, 0.125},
			{400 * time.Millisecond, 0.05, 1000, 0, 0.125},
			{90 * time.Millisecond, 0.3, 1000, 0, 0.125},
			{400 * time.Millisecond, 0.05, 1000, 0, 0.125},
			{100 * time.Millisecond, 0.05, 1000, 0, 0.25},
		},
	} {
		for _, rate := range []*float64{nil, &half, &percent} {
			t.Run(name, func(t *testing.T) {
				now, whole := int64(time.Hour), thresholdOf(rate)
				s := shedder{ceiling: whole, threshold: whole, calm: now}
				for i, p := range polls {
					now += int64(p.after)
					before, want := s.threshold, whole.times(p.want)
					s.saw(0, 5, 0) // another ring, with less in it
					s.saw(p.used, p.taken, p.lost)
					change, changed := s.decide(now)
					if d := int64(s.threshold) - int64(want); d < -1 || d > 1 || changed != (before != s.threshold) {
						t.Errorf("poll %d: got threshold %d, changed %v, want %d", i, s.threshold, changed, want)
					}
					if changed && change != (ThresholdChange{At: now, Before: before, After: s.threshold}) {
						t.Errorf("poll %d: %+v", i, change)
					}
				}
			})
		}
	}
}

// The programs report each packet of the selected lookups, none of the others, and count
// those.
func TestPacketsBelowTheThreshold(t *testing.T) {
	const ids = 1000
	for _, threshold := range []Threshold{AllLookups / 3, AllLookups.times(minFraction), 0} {
		source, _, client := exerciseThreshold(t, 0, ids, threshold)
		seen := map[uint16]int{}
		for _, p := range poll(t, source) {
			seen[binary.BigEndian.Uint16(p.Payload)]++
		}
		shed := uint64(0)
		for id := range uint16(ids) {
			want := 0
			if threshold.Selects(trace.TransportUDP, id, client.Port()) {
				want = 2 // TX and RX on loopback
			}
			shed += uint64(2 - want)
			if seen[id] != want {
				t.Errorf("threshold %d: %d packets of ID %d, want %d", threshold, seen[id], id, want)
			}
		}
		if c := source.Counters(); c.Shed != shed || c.Emitted != 2*ids-shed || c.Lost != 0 {
			t.Errorf("threshold %d: %+v, want %d shed", threshold, c, shed)
		}
	}
}

// A ring that overflows makes the programs report fewer lookups, whole ones, and the change
// is reported.
func TestOverflowLowersTheThreshold(t *testing.T) {
	source, _, _ := exercise(t, 4096, 500)
	poll(t, source)
	changes := source.ThresholdChanges()
	c := source.Counters()
	if len(changes) != 1 || changes[0].Before != AllLookups || changes[0].After.fractionOf(AllLookups) != c.ReportedShare || c.ReportedShare >= 0.5 {
		t.Fatalf("changes %+v, %+v", changes, c)
	}
	var threshold uint32
	if err := source.coll.Variables[bpf.DnstraceVarShare].Get(&threshold); err != nil || Threshold(threshold) != changes[0].After {
		t.Errorf("the programs have threshold %d, %v", threshold, err)
	}
	if again := source.ThresholdChanges(); len(again) != 0 {
		t.Errorf("reported twice: %+v", again)
	}
}

// addRules adds rules of nftables to the namespace of this thread, if it has nft and
// the kernel its modules, as some virtual machines have not.
func addRules(format string, args ...any) bool {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(fmt.Sprintf(format, args...))
	return nft.Run() == nil
}

// A TCP connection whose port is translated is selected by the port that its client used,
// as in user space: else its packets would be selected in part.
func TestTranslatedConnectionIsSampled(t *testing.T) {
	const service, connections = 61153, 60
	threshold := AllLookups / 2
	var source *Source
	clients := map[uint16]bool{}
	unsupported := false
	inNewNamespace(t, func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		if unsupported = !addRules("table ip t { chain o { type nat hook output priority -100; tcp dport %d redirect to :%d; }; }",
			service, l.Addr().(*net.TCPAddr).Port); unsupported {
			return nil
		}
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if source, err = openDevices(Config{Ports: []uint16{service}, NetNS: []string{fmt.Sprint(inode)}}); err != nil {
			return err
		}
		if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(threshold)); err != nil {
			return err
		}
		for range connections {
			conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", service))
			if err != nil {
				return err
			}
			clients[conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()] = true
			if err := conn.Close(); err != nil {
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
		client := p.Src.Port()
		if p.TCPFlags&FlagACK != 0 {
			client = p.Dst.Port()
		}
		if p.TCPFlags&FlagSYN != 0 {
			seen[client]++
		}
	}
	in := 0
	for port := range clients {
		want := 0
		if threshold.Selects(trace.TransportTCP, 0, port) {
			want, in = 4, in+1 // SYN and SYN-ACK, sent and received
		}
		if seen[port] != want {
			t.Errorf("port %d: %d packets, expected %d", port, seen[port], want)
		}
	}
	if in == 0 || in == connections {
		t.Errorf("%d of %d are selected, which proves nothing", in, connections)
	}
}
