package exchange

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// key identifies an exchange in each of its packets. It has no server, whose address is
// translated on the way: exchanges with one key are distinguished by server afterwards.
type key struct {
	client   netip.AddrPort
	netns    uint32 // as loopbackOf has it
	question uint64
	id       uint16
	protocol uint8
}

// socket is the client's end of exchanges.
type socket struct {
	client   netip.AddrPort
	netns    uint32 // as loopbackOf has it
	protocol uint8
}

// seeds make hashes unpredictable.
var seeds = [...]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64()}

// mix makes one hash of two numbers, as wyhash does.
func mix(x, y uint64) uint64 {
	high, low := bits.Mul64(x, y)
	return high ^ low
}

func hashAddr(addr netip.Addr) uint64 {
	b := addr.As16()
	return mix(binary.NativeEndian.Uint64(b[:8])^seeds[0], binary.NativeEndian.Uint64(b[8:])^seeds[1])
}

func (s socket) hash() uint64 {
	x := hashAddr(s.client.Addr())
	return mix(x^uint64(s.client.Port())<<8^uint64(s.protocol), uint64(s.netns)^seeds[2])
}

func (k key) hash() uint64 {
	return mix(socket{k.client, k.netns, k.protocol}.hash()^k.question, uint64(k.id)^seeds[3])
}

// slot holds the exchanges with one key: one, but for clients that ask several servers
// with one ID from one socket, and for proxies that ask with their client's address.
type slot struct {
	one  *open
	more []*open
}

func (s *slot) len() int {
	if s.one == nil {
		return 0
	}
	return 1 + len(s.more)
}

func (s *slot) at(i int) *open {
	if i == 0 {
		return s.one
	}
	return s.more[i-1]
}

// clientOf returns the client's address before any translation that the packet tells.
func clientOf(p *capture.Packet, response bool) netip.AddrPort {
	switch {
	case p.NAT != nil:
		return p.NAT.Original.Src
	case response:
		return p.Dst
	}
	return p.Src
}

// serverOf returns the server's address before any translation that the packet tells.
func serverOf(p *capture.Packet, response bool) netip.AddrPort {
	switch {
	case p.NAT != nil:
		return p.NAT.Original.Dst
	case response:
		return p.Src
	}
	return p.Dst
}

// keyOf returns the key of a packet. before is what was in its buffer: almost always the
// same message, whose question need not be hashed again.
func keyOf(p *capture.Packet, h *header, client netip.AddrPort, before *buffer) key {
	k := key{client: client, netns: loopbackOf(client, p), id: h.id, protocol: p.Protocol}
	if before != nil && bytes.Equal(before.ex.question, h.question) {
		k.question = before.ex.key.question
	} else {
		k.question = hash(h.question)
	}
	return k
}

func socketOf(p *capture.Packet, client netip.AddrPort) socket {
	return socket{client, loopbackOf(client, p), p.Protocol}
}

// at returns the exchanges with a key, the oldest first.
func (t *Table) at(k key) (s slot) {
	for ex := range t.keys.Of(k.hash(), math.MaxInt) {
		switch {
		case ex.key != k:
			continue
		case s.one != nil:
			s.more = slices.Insert(s.more, 0, s.one)
		}
		s.one = ex
	}
	if len(t.aliases) > 0 {
		for _, ex := range t.aliases[k] {
			if s.one == nil {
				s.one = ex
			} else {
				s.more = append(s.more, ex)
			}
		}
	}
	if s.one == nil {
		s.one = t.inSomeNamespace(k)
	}
	return s
}

// knows tells whether an exchange is known by a key.
func (ex *open) knows(k key) bool {
	return ex.key == k || slices.Contains(ex.clients, k)
}

// alias makes an exchange known by another address of its client.
func (t *Table) alias(k key, ex *open) {
	if ex.knows(k) {
		return
	}
	if s := t.at(k); 1+len(ex.clients) >= maxAliases || s.len() >= maxWithKey {
		t.stats.Addresses++
		return
	}
	ex.clients = append(ex.clients, k)
	t.aliases[k] = append(t.aliases[k], ex)
}

// socket is the client's end of an exchange.
func (ex *open) socket() socket { return socket{ex.key.client, ex.key.netns, ex.key.protocol} }

// index makes an exchange that has begun known.
func (t *Table) index(ex *open) {
	t.keys.Join(ex.key.hash(), ex)
	t.alike.Join(ex.key.question, ex)
	if ex.key.protocol == trace.TransportUDP {
		t.sockets.Join(ex.socket().hash(), ex)
	}
}

// unindex undoes index and alias.
func (t *Table) unindex(ex *open) {
	t.keys.Leave(ex)
	t.alike.Leave(ex)
	t.sockets.Leave(ex)
	for _, k := range ex.clients {
		if rest := slices.DeleteFunc(t.aliases[k], func(other *open) bool { return other == ex }); len(rest) > 0 {
			t.aliases[k] = rest
		} else {
			delete(t.aliases, k)
		}
	}
}

// What an exchange takes in the chains and in waiting, and one that has another key in
// aliases: Go's maps are between 7/16 and 7/8 full.
const (
	indexBytes = chainings*2*8 + 3*(8+8)/2
	aliasBytes = 3 * (int(unsafe.Sizeof(key{})) + 3*8 + 8) / 2
)
