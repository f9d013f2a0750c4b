package capture

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel frees as if it were dropped, and nobody misses.

// A frame of another machine, as a bridge floods it to all of its ports: seen, and no
// drop. Linux has a reason for it since 5.18.
func TestFrameOfAnotherHostIsNoDrop(t *testing.T) {
	netns, send := loopbackOfItsOwn(t)
	source := openIn(t, netns)
	for ethertype, packet := range map[uint16][]byte{etherIPv4: plain, etherIPv6: plain6} {
		send(ethertype, toAnotherHost(ethertype, packet))
	}
	wantNoDrop(t, source, 2)
}

// A packet socket that nobody reads, with as small a buffer as there may be: what it
// has no room for is its own copy.
func TestCopyOfASnifferIsNoDrop(t *testing.T) {
	sniffer := -1
	netns, send := loopbackOfItsOwn(t, func() (err error) {
		const everything = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		if sniffer, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, everything); err != nil {
			return err
		}
		return unix.SetsockoptInt(sniffer, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	})
	defer unix.Close(sniffer)
	source := openIn(t, netns)
	const packets = 50
	for range packets {
		send(etherIPv4, toAnotherHost(etherIPv4, plain))
	}
	wantNoDrop(t, source, packets)
	// It is the test's own proof that there were copies without room.
	stats, err := unix.GetsockoptTpacketStats(sniffer, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Drops == 0 {
		t.Errorf("the sniffer had room for all: %+v", stats)
	}
}

func toAnotherHost(ethertype uint16, packet []byte) []byte {
	frame := ethernet(uint64(ethertype), packet)
	copy(frame, "\x02\x00\x00\x00\x00\x99")
	return frame
}

// wantNoDrop wants packets seen once on their way out and once in.
func wantNoDrop(t *testing.T, source *Source, packets int) {
	t.Helper()
	seen := map[Kind]int{}
	for _, p := range poll(t, source) {
		seen[p.Kind]++
		if p.Kind == Drop && !p.NotForHost {
			t.Errorf("dropped: %q in %q: %+v", p.Reason, p.Where, p)
		}
	}
	if seen[TX] != packets || seen[RX] != packets {
		t.Errorf("seen %v, expected %d on the way out and in", seen, packets)
	}
}
