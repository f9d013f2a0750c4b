package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Frames are built header by header, from the inside out, without checksums: the
// programs look at packets before the network stack checks them.

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

func be(n int, v uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	return b[8-n:]
}

func ethernet(ethertype uint64, payload []byte) []byte {
	return slices.Concat(make([]byte, 12), be(2, ethertype), payload)
}

// tag is what follows the ethertype 0x8100 or 0x88a8.
func tag(id, ethertype uint64, payload []byte) []byte {
	return slices.Concat(be(2, 0xe000|id), be(2, ethertype), payload)
}

type ipv4 struct {
	src, dst string
	protocol uint64
	options  []byte // whole words
	id       uint64
	fragment uint64 // flags, and the offset in units of eight bytes
}

func (h ipv4) packet(payload []byte) []byte {
	src, dst := netip.MustParseAddr(h.src).As4(), netip.MustParseAddr(h.dst).As4()
	words := 5 + len(h.options)/4
	return slices.Concat(be(1, uint64(0x40|words)), be(1, 0), be(2, uint64(words*4+len(payload))), be(2, h.id), be(2, h.fragment),
		be(1, 64), be(1, h.protocol), be(2, 0), src[:], dst[:], h.options, payload)
}

func ipv6(src, dst string, next uint64, payload []byte) []byte {
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	return slices.Concat(be(4, 6<<28), be(2, uint64(len(payload))), be(1, next), be(1, 64), s[:], d[:], payload)
}

// extension is a hop-by-hop, routing or destination options header of 8 bytes and
// more bytes beyond them.
func extension(next uint64, more int, payload []byte) []byte {
	return slices.Concat(be(1, next), be(1, uint64(more/8)), be(1, 1), be(1, uint64(4)), make([]byte, 4+more), payload)
}

func fragment6(next, offset uint64, more bool, id uint64, payload []byte) []byte {
	if more {
		offset |= 1
	}
	return slices.Concat(be(1, next), be(1, 0), be(2, offset), be(4, id), payload)
}

func udp(sport, dport uint64, payload []byte) []byte {
	return slices.Concat(be(2, sport), be(2, dport), be(2, uint64(8+len(payload))), be(2, 0), payload)
}

func tcp(sport, dport, seq, flags uint64, options, payload []byte) []byte {
	words := uint64(5 + len(options)/4)
	return slices.Concat(be(2, sport), be(2, dport), be(4, seq), be(4, 0), be(1, words<<4), be(1, flags), be(2, 1024), be(4, 0), options, payload)
}

func vxlan(vni uint64, frame []byte) []byte {
	return slices.Concat(be(4, 0x08000000), be(4, vni<<8), frame)
}

func geneve(vni, protocol uint64, options, inner []byte) []byte {
	return slices.Concat(be(1, uint64(len(options)/4)), be(1, 0), be(2, protocol), be(4, vni<<8), options, inner)
}

func gre(flags, protocol uint64, options, inner []byte) []byte {
	return slices.Concat(be(2, flags), be(2, protocol), options, inner)
}

func icmp(kind, code, rest uint64, quoted []byte) []byte {
	return slices.Concat(be(1, kind), be(1, code), be(2, 0), be(4, rest), quoted)
}
