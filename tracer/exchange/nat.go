package exchange

import (
	"bytes"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// translated notes the addresses after translation: from connection tracking, or
// because a query has other ones than before. A packet may be translated more
// than once, by namespaces one behind the other; what the server sees counts.
func (ex *open) translated(p *capture.Packet, response bool) {
	r := &ex.record
	if p.NAT != nil {
		if r.NAT == nil || r.NAT.Source != trace.NATConntrack || !response {
			ex.tracked(p.NAT)
		}
		return
	}
	if response || r.NAT != nil && r.NAT.Source == trace.NATConntrack {
		return
	}
	server, client := netip.AddrPortFrom(r.ServerIP, r.ServerPort), netip.AddrPortFrom(r.ClientIP, r.ClientPort)
	if p.Dst == server && p.Src == client {
		return
	}
	ex.nat(trace.NATMatched)
	if p.Dst != server {
		ex.parts.translatedServer(p.Dst)
	}
	if p.Src != client {
		ex.parts.translatedClient(p.Src)
	}
}

// tracked notes what connection tracking says.
func (ex *open) tracked(t *capture.NAT) {
	if known := ex.record.NAT; known != nil && known.Source != trace.NATConntrack {
		ex.record.NAT = nil // what was matched gives way to what is known
	}
	ex.nat(trace.NATConntrack)
	if a := t.Reply.Src; a != t.Original.Dst {
		ex.parts.translatedServer(a)
	}
	if a := t.Reply.Dst; a != t.Original.Src {
		ex.parts.translatedClient(a)
	}
}

// nat makes the record say that something is translated, what it says so far
// included.
func (ex *open) nat(source string) {
	if ex.record.NAT == nil {
		ex.parts.nat = trace.NAT{Source: source}
		ex.record.NAT = &ex.parts.nat
	}
}

func (p *parts) translatedServer(a netip.AddrPort) {
	p.serverPort = a.Port()
	p.nat.ServerIP, p.nat.ServerPort = a.Addr(), &p.serverPort
}

func (p *parts) translatedClient(a netip.AddrPort) {
	p.clientPort = a.Port()
	p.nat.ClientIP, p.nat.ClientPort = a.Addr(), &p.clientPort
}

// sameSKB is how long a packet's buffer surely is that packet's: the kernel uses
// it again soon after. A packet crosses a node in microseconds.
const sameSKB = 2_000_000 // ns

// recent remembers which packets belong to which exchange, by their buffers, to
// know a packet again at its next place, also if its addresses were translated. It is
// small: a packet that passed in between takes the place of one that did not come back.
type recent [1 << 10]struct {
	skb      uint64
	time     int64
	ex       *open
	response bool
}

func (r *recent) slot(skb uint64) int {
	return int(skb * 0x9e3779b97f4a7c15 >> 54) // Fibonacci hashing, to ten bits
}

func (r *recent) note(p *capture.Packet, ex *open, response bool) {
	at := &r[r.slot(p.SKB)]
	at.skb, at.time, at.response = p.SKB, p.Time, response
	if at.ex != ex {
		at.ex = ex
	}
}

// in returns the exchange of what was in the same buffer just before.
func (r *recent) in(p *capture.Packet) *open {
	at := &r[r.slot(p.SKB)]
	if at.ex == nil || at.ex.closed || at.skb != p.SKB || p.SKB == 0 || p.Time-at.time > sameSKB {
		return nil
	}
	return at.ex
}

// same returns the exchange of what was in the same buffer, if the table would find it
// by what the packet says: most sightings are of a packet that was just seen, for
// which to compare is faster than to search.
func (r *recent) same(p *capture.Packet, h *header, client netip.AddrPort) *open {
	ex := r.in(p)
	if ex == nil || ex.connects || ex.keys[0].id != h.id || ex.keys[0].protocol != p.Protocol {
		return nil
	}
	// As it was written first: whoever mixes the case of letters on the way is found
	// in the table.
	q := splitQuestion(h.question)
	if q.qtype != ex.qtype || q.qclass != ex.qclass || !bytes.Equal(q.name, ex.name) {
		return nil
	}
	netns := loopbackOf(client, p)
	for i := range ex.keys {
		if ex.keys[i].client == client && ex.keys[i].netns == netns {
			return ex
		}
	}
	return nil
}

// query returns the exchange of the query that was in the same buffer, if it is
// the same query. What a socket sends is new, whatever was in its buffer before: a
// forwarder may ask on with the client's own question and ID, as dnsmasq does over
// TCP.
func (r *recent) query(p *capture.Packet, k key) *open {
	ex := r.in(p)
	if ex == nil || p.PID != 0 || p.CgroupID != 0 || r[r.slot(p.SKB)].response {
		return nil
	}
	first := ex.keys[0]
	if first.question != k.question || first.id != k.id || first.protocol != k.protocol {
		return nil
	}
	if k.netns != 0 && k.netns != first.netns {
		return nil
	}
	return ex
}

// response returns the exchange of the response that was in the same buffer.
func (r *recent) response(p *capture.Packet, id uint16) *open {
	ex := r.in(p)
	if ex == nil || ex.keys[0].id != id || ex.keys[0].protocol != p.Protocol {
		return nil
	}
	return ex
}
