// Package messages keeps the DNS messages that were captured last, as they were on
// the wire, for `explain --pcap`: records hold what was understood of them, not their
// bytes. Memory is bounded; the oldest make room.
package messages

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Bounds of a ring: 3 MiB of messages, which are some 100 bytes each, and 1.3 MiB to
// find them by. Together that is more than a second of 10,000 lookups a second with
// an upstream query each, and twenty minutes of ten.
const (
	dataBytes  = 3 << 20
	maxEntries = 20000
	places     = 4096
)

// samePacket is how long a message is under way at most: what is seen of it in that
// time, at another place, is the same.
const samePacket = int64(500e6)

// golden spreads ports that follow each other (Knuth's multiplicative hash).
const golden = 2654435761

// header is the length of a DNS header (RFC 1035, section 4.1.1).
const header = 12

// key is what a message is found by. The client's end stays the same when a Service's
// address is translated.
type key struct {
	client   netip.AddrPort
	id       uint16
	response bool
}

type entry struct {
	key
	time           int64  // ns of the monotonic clock
	at             uint64 // its place in all the bytes that ever came
	captured, size int
}

type seen struct {
	key
	time int64
}

// Ring is safe for use from many goroutines.
type Ring struct {
	mu      sync.Mutex
	data    []byte
	end     uint64 // how many bytes ever came
	entries []entry
	next    int
	recent  [places]seen // by a hash of the key
}

// NewRing returns an empty ring.
func NewRing() *Ring {
	return &Ring{data: make([]byte, dataBytes), entries: make([]entry, 0, maxEntries)}
}

// Message is a message as it was captured.
type Message struct {
	Time     int64 // ns of the kernel's monotonic clock, at its first place
	Response bool
	Wire     []byte // from its front, as far as captured
	Size     int    // bytes on the wire
}

// Add keeps the message of a packet, once for all its places. Segments of TCP and
// later fragments are not messages, and are left out, as is what a socket got: it passed
// a device, or a redirect past one, before.
func (r *Ring) Add(p *capture.Packet) {
	if p.Protocol != trace.TransportUDP || len(p.Payload) < header || p.ICMP != nil {
		return
	}
	k := key{client: p.Src, id: binary.BigEndian.Uint16(p.Payload), response: p.Payload[2]&0x80 != 0}
	if k.response {
		k.client = p.Dst
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.recent[(uint32(k.client.Port())*golden>>7^uint32(k.id))%places]
	if s.key == k && p.Time-s.time < samePacket {
		return
	}
	*s = seen{k, p.Time}
	r.keep(entry{key: k, time: p.Time, captured: len(p.Payload), size: p.PayloadLen}, p.Payload)
}

func (r *Ring) keep(e entry, wire []byte) {
	at := int(r.end % dataBytes)
	if room := dataBytes - at; room < len(wire) {
		// A message is in one piece.
		r.end += uint64(room)
		at = 0
	}
	copy(r.data[at:], wire)
	e.at = r.end
	r.end += uint64(len(wire))
	if len(r.entries) < maxEntries {
		r.entries = append(r.entries, e)
		return
	}
	r.entries[r.next] = e
	r.next = (r.next + 1) % maxEntries
}

// Find returns the messages, queries and responses, with that id from and to that
// end of a client, the oldest first.
func (r *Ring) Find(client netip.AddrPort, id uint16) []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []Message
	for i := range r.entries {
		e := &r.entries[(r.next+i)%len(r.entries)]
		if e.id != id || e.client != client || r.end-e.at > dataBytes {
			continue
		}
		at := int(e.at % dataBytes)
		found = append(found, Message{Time: e.time, Response: e.response, Size: e.size, Wire: append([]byte(nil), r.data[at:at+e.captured]...)})
	}
	return found
}

// RecordingSource is a source of packets that keeps their messages in a Ring.
type RecordingSource struct {
	*capture.Source
	Ring *Ring
}

// Poll implements pipeline.Source.
func (r RecordingSource) Poll(deliver func(*capture.Packet)) (upTo int64, err error) {
	return r.Source.Poll(func(p *capture.Packet) {
		r.Ring.Add(p)
		deliver(p)
	})
}
