package exchange

import (
	"bytes"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// key is what every packet of an exchange says of it. The server is told apart behind
// it: its address is translated on the way.
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

// keyOf returns the key of a packet. Before is what was in its buffer: nearly always the same
// message, whose question need not be hashed again.
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

// at returns the exchanges with a key.
func (t *Table) at(k key) slot {
	s, ok := t.open[k]
	if !ok {
		s.one = t.inSomeNamespace(k)
	}
	return s
}

// know makes an exchange known by a key.
func (t *Table) know(k key, ex *open) {
	s := t.open[k]
	if s.one == nil {
		s.one = ex
	} else {
		s.more = append(s.more, ex)
	}
	t.open[k] = s
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
	if s := t.open[k]; 1+len(ex.clients) >= maxAliases || s.len() >= maxWithKey {
		t.stats.Addresses++
		return
	}
	ex.clients = append(ex.clients, k)
	t.know(k, ex)
}

// socket is the client's end of an exchange.
func (ex *open) socket() socket { return socket{ex.key.client, ex.key.netns, ex.key.protocol} }

// index makes an exchange that has begun known.
func (t *Table) index(ex *open) {
	t.know(ex.key, ex)
	t.alike.join(ex.key.question, ex)
	if ex.key.protocol == trace.TransportUDP {
		t.sockets.join(ex.socket(), ex)
	}
}

// unindex undoes index and alias.
func (t *Table) unindex(ex *open) {
	t.unknow(ex.key, ex)
	for _, k := range ex.clients {
		t.unknow(k, ex)
	}
	t.alike.leave(ex.key.question, ex)
	t.sockets.leave(ex.socket(), ex)
}

func (t *Table) unknow(k key, ex *open) {
	s, ok := t.open[k]
	switch {
	case !ok:
		return
	case s.one == ex && len(s.more) == 0:
		delete(t.open, k)
		return
	case s.one == ex:
		s.one, s.more = s.more[0], s.more[1:]
	default:
		s.more = slices.DeleteFunc(s.more, func(other *open) bool { return other == ex })
	}
	t.open[k] = s
}

// indexBytes is what the maps take for an exchange: Go's maps are between 7/16 and 7/8
// full.
const indexBytes = 3 * (int(unsafe.Sizeof(key{})) + int(unsafe.Sizeof(slot{})) + int(unsafe.Sizeof(socket{})) + 5*8) / 2
