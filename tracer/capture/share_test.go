package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// Of IDs that are counted up as of others, the share that is reported is as large
// as it says, and a smaller one is part of a larger.
func TestShareHas(t *testing.T) {
	for _, share := range []Share{WholeShare, WholeShare / 2, WholeShare / 10, minimalShare, 0} {
		for _, block := range []int{0, 20000, 60000} {
			const ids = 4096
			in := 0
			for id := block; id < block+ids; id++ {
				if !share.Has(trace.TransportUDP, uint16(id), 0, 0) {
					continue
				}
				in++
				if !(share + share/2).Has(trace.TransportUDP, uint16(id), 0, 0) {
					t.Errorf("ID %d is in %d, but not in one and a half times as much", id, share)
				}
			}
			if want := ids * int(share) / int(WholeShare); in < want-want/10-2 || in > want+want/10+2 {
				t.Errorf("IDs from %d: %d of %d in share %d", block, in, ids, share)
			}
		}
	}
	// A connection is the same in both directions, whatever the ID of a message.
	for port := uint16(30000); port < 31000; port++ {
		if share := WholeShare / 3; share.Has(trace.TransportTCP, 1, port, 53) != share.Has(trace.TransportTCP, 2, 53, port) {
			t.Errorf("TCP port %d: one direction only", port)
		}
	}
}

func TestSharer(t *testing.T) {
	type poll struct {
		after       time.Duration
		used        float64
		taken, lost uint64
		want        Share
	}
	for name, polls := range map[string][]poll{
		"enough room": {{20 * time.Millisecond, 0.7, 1000, 0, WholeShare}, {2 * time.Second, 0.05, 1000, 0, WholeShare}},
		"nearly full, then calm": {
			{20 * time.Millisecond, 0.8, 1000, 0, 40960}, // half of the ring is 0.5 of 0.8
			{20 * time.Millisecond, 0.5, 1000, 0, 40960},
			{400 * time.Millisecond, 0.05, 1000, 0, 40960},
			{100 * time.Millisecond, 0.25, 1000, 0, WholeShare},
		},
		"full, and more was lost than taken": {{20 * time.Millisecond, 1, 1000, 3000, 8192}},
		"nothing was taken":                  {{20 * time.Millisecond, 1, 0, 1 << 40, minimalShare}},
		"no further down": {
			{20 * time.Millisecond, 1, 1, 1 << 20, minimalShare},
			{20 * time.Millisecond, 1, 1, 1 << 20, minimalShare},
		},
		"not calm for long enough": {
			{20 * time.Millisecond, 1, 1000, 3000, WholeShare / 8},
			{400 * time.Millisecond, 0.05, 1000, 0, WholeShare / 8},
			{90 * time.Millisecond, 0.3, 1000, 0, WholeShare / 8},
			{400 * time.Millisecond, 0.05, 1000, 0, WholeShare / 8},
			{100 * time.Millisecond, 0.05, 1000, 0, WholeShare / 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, now := sharer{share: WholeShare}, int64(time.Hour)
			s.calm = now
			for i, p := range polls {
				now += int64(p.after)
				before := s.share
				s.saw(0, 5, 0) // another ring, with less in it
				s.saw(p.used, p.taken, p.lost)
				change, changed := s.decide(now)
				if s.share != p.want || changed != (before != p.want) {
					t.Errorf("poll %d: got share %d, changed %v, want %d", i, s.share, changed, p.want)
				}
				if changed && change != (Reshare{At: now, Before: before, After: p.want}) {
					t.Errorf("poll %d: %+v", i, change)
				}
			}
		})
	}
}

// The programs report each packet of the lookups in the share, none of the others,
// and count those.
func TestSharedPackets(t *testing.T) {
	const ids = 1000
	for _, share := range []Share{WholeShare / 3, minimalShare, 0} {
		source, _, _ := exerciseShare(t, 0, ids, share)
		seen := map[uint16]int{}
		for _, p := range poll(t, source) {
			seen[binary.BigEndian.Uint16(p.Payload)]++
		}
		shed := uint64(0)
		for id := range uint16(ids) {
			want := 0
			if share.Has(trace.TransportUDP, id, 0, 0) {
				want = 2 // TX and RX on loopback
			}
			shed += uint64(2 - want)
			if seen[id] != want {
				t.Errorf("share %d: %d packets of ID %d, want %d", share, seen[id], id, want)
			}
		}
		if c := source.Counters(); c.Shed != shed || c.Emitted != 2*ids-shed || c.Lost != 0 {
			t.Errorf("share %d: %+v, want %d shed", share, c, shed)
		}
	}
}

// A ring that overflows makes the programs report fewer lookups, whole ones, and
// the change is told.
func TestOverflowMakesTheShareSmaller(t *testing.T) {
	source, _, _ := exercise(t, 4096, 500)
	poll(t, source)
	changes := source.Reshares()
	c := source.Counters()
	if len(changes) != 1 || changes[0].Before != WholeShare || changes[0].After != c.Share || c.Share >= WholeShare/2 {
		t.Fatalf("changes %+v, %+v", changes, c)
	}
	var share uint32
	if err := source.coll.Variables[bpf.DnstraceVarShare].Get(&share); err != nil || Share(share) != c.Share {
		t.Errorf("the programs have share %d, %v", share, err)
	}
	if again := source.Reshares(); len(again) != 0 {
		t.Errorf("told twice: %+v", again)
	}
}

// addRules adds rules of nftables to the namespace of this thread, if it has nft and
// the kernel its modules, as some virtual machines have not.
func addRules(format string, args ...any) bool {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(fmt.Sprintf(format, args...))
	return nft.Run() == nil
}

// A TCP connection whose port is translated is in the share by the ports that its
// client used, which is how user space judges it: it would be split else.
func TestTranslatedConnectionInTheShare(t *testing.T) {
	const service, connections = 61153, 60
	share := WholeShare / 2
	var source *Source
	clients := map[uint16]bool{}
	lacks := false
	inNewNamespace(t, func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		if lacks = !addRules("table ip t { chain o { type nat hook output priority -100; tcp dport %d redirect to :%d; }; }",
			service, l.Addr().(*net.TCPAddr).Port); lacks {
			return nil
		}
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if source, err = openDevices(Config{Ports: []uint16{service}, NetNS: []string{fmt.Sprint(inode)}}); err != nil {
			return err
		}
		if err := source.coll.Variables[bpf.DnstraceVarShare].Set(uint32(share)); err != nil {
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
	if lacks {
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
		if share.Has(trace.TransportTCP, 0, port, service) {
			want, in = 4, in+1 // SYN and SYN-ACK, sent and received
		}
		if seen[port] != want {
			t.Errorf("port %d: %d packets, expected %d", port, seen[port], want)
		}
	}
	if in == 0 || in == connections {
		t.Errorf("%d of %d are in the share, which proves nothing", in, connections)
	}
}
