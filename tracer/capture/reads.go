package capture

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Bounds of what is kept of datagrams that were delivered and not read yet.
const (
	// The receive queue of a socket holds some 280 small datagrams by default
	// (net.core.rmem_default); this is 14 such queues.
	maxUnread = 4096
	// A read is compared with at most so many datagrams with the same first bytes: reads of
	// more equal ones stay unknown.
	maxLooked = 512
	// Header, the longest name, type and class take 271.
	keptPayload = 512
	// The clients have given up by then.
	unreadFor = int64(10 * time.Second)
)

// unread matches reads of processes with the datagrams that were delivered to their
// sockets. Of a read the kernel shows the socket, the length and the first bytes of what
// the reader got (bpf/socket.h), which identify its datagram among the few that wait
// there. A read that matches none is dropped, never guessed.
type unread struct {
	sockets        map[uint64]ends
	alike          [1 << 10]*datagram // by socket and front, the newest first
	oldest, newest *datagram          // of all sockets
	free           *datagram          // list of unused ones, linked by next
	count          int
	forgotten      uint64      // for lack of room
	doubts         []*datagram // that were or may have been read, by a read that is not known; until the next delivery
}

// ends of a socket's queue.
type ends struct{ first, last *datagram }

// datagram was delivered.
type datagram struct {
	packet       Packet
	payload      []byte
	front        uint32    // DNS ID and flags
	doubted      bool      // it was among the doubts
	alike        *datagram // the next in alike
	before, next *datagram // of the same socket
	older, newer *datagram // of all
}

// deliver records a datagram. It returns false for one that was seen before: a tracepoint
// that sees the end of a queue may see it twice.
func (u *unread) deliver(p *Packet) bool {
	queue := u.sockets[p.Sock]
	if last := queue.last; last != nil && p.SKB != 0 && last.packet.SKB == p.SKB && bytes.HasPrefix(p.Payload, last.payload) {
		return false
	}
	if u.count >= maxUnread {
		u.remove(u.oldest)
		u.forgotten++
		queue = u.sockets[p.Sock]
	}
	d := u.free
	if d == nil {
		d = new(datagram)
	} else {
		u.free = d.next
	}
	d.payload = append(d.payload[:0], p.Payload[:min(len(p.Payload), keptPayload)]...)
	d.packet = *p
	d.packet.Payload = d.payload
	d.front, d.doubted = frontOf(d.payload), false
	d.before, d.next, d.older, d.newer = queue.last, nil, u.newest, nil
	if queue.last != nil {
		queue.last.next = d
	} else {
		queue.first = d
	}
	queue.last = d
	u.sockets[p.Sock] = queue
	if u.newest != nil {
		u.newest.newer = d
	} else {
		u.oldest = d
	}
	u.newest = d
	u.count++
	head := u.bucket(p.Sock, d.front)
	d.alike, *head = *head, d
	return true
}

// bucket returns where the datagrams of a socket are that have a front.
func (u *unread) bucket(sock uint64, front uint32) **datagram {
	return &u.alike[(sock^uint64(front)*0x9e3779b97f4a7c15)*0x9e3779b97f4a7c15>>54] // Fibonacci hashing, to ten bits
}

// find returns the datagram that a reader got, the first of those that it may be; nil if
// unknown.
func (u *unread) find(p *Packet) (found *datagram) {
	looked := 0
	for d := *u.bucket(p.Sock, frontOf(p.Payload)); d != nil; d = d.alike {
		if looked++; looked > maxLooked {
			return nil
		}
		if d.packet.Sock == p.Sock && d.is(p) {
			found = d
		}
	}
	return found
}

// read replaces a read, which has no packet, by the datagram that was read, and reports
// whether it is known. Its payload stays valid until the next call of deliver. exact says
// that every delivery of all lookups was seen.
func (u *unread) read(p *Packet, exact bool) bool {
	var d *datagram
	if len(p.Payload) < headerBytes {
		// The queue is empty behind it, or it is unknown where the reader has it, as of
		// io_uring and recvmmsg: it has to be the only one.
		queue := u.sockets[p.Sock]
		if d = queue.first; d != queue.last {
			u.doubt(d)
			u.forget(d, p.Time-underWay)
			return false
		}
		if d == nil || !exact || d.packet.PayloadLen < p.PayloadLen {
			return false
		}
	} else if d = u.find(p); d == nil {
		return false
	}
	u.remove(d)
	was := *p
	*p = d.packet
	p.Kind, p.Time = Read, was.Time
	p.PID, p.Comm, p.TID, p.Thread = was.PID, was.Comm, was.TID, was.Thread
	return true
}

// underWay bounds the time from the event of a delivery until the datagram is in its queue,
// on an overloaded node.
const underWay = int64(time.Millisecond)

// doubt notes that a socket's datagrams from d on may have been read.
func (u *unread) doubt(d *datagram) {
	for ; d != nil; d = d.next {
		u.doubtOne(d)
	}
}

func (u *unread) doubtOne(d *datagram) {
	if !d.doubted {
		d.doubted = true
		u.doubts = append(u.doubts, d)
	}
}

// passDoubts delivers the doubts, each as a read that is unsure. No datagram may be delivered
// between a doubt and this.
func (u *unread) passDoubts(deliver func(*Packet)) {
	for i, d := range u.doubts {
		p := d.packet
		p.Kind, p.Unsure = Read, true
		deliver(&p)
		u.doubts[i] = nil
	}
	u.doubts = u.doubts[:0]
}

// forget drops a socket's datagrams from d on that were delivered before a time: one of
// several was read behind which the queue was empty, so that they were read too, by which read
// is not known. Kept, they would make every later read ambiguous.
func (u *unread) forget(d *datagram, before int64) {
	for d != nil && d.packet.Time < before {
		next := d.next
		u.remove(d)
		d = next
	}
}

// frontOf returns the first four bytes of a message; 0 where there are fewer.
func frontOf(payload []byte) uint32 {
	if len(payload) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(payload)
}

// headerBytes are those of a DNS header (RFC 1035, section 4.1.1).
const headerBytes = 12

// is tells whether a reader got this datagram: all of it, or as much as it had room for.
func (d *datagram) is(p *Packet) bool {
	n := min(len(p.Payload), len(d.payload))
	return d.packet.PayloadLen >= p.PayloadLen && n >= headerBytes && bytes.Equal(d.payload[:n], p.Payload[:n])
}

// recentDrops bounds the newest datagrams that a drop at the socket may concern: it follows
// the delivery at once.
const recentDrops = 64

// drop forgets a datagram that did not get into its queue after all.
func (u *unread) drop(skb uint64) {
	d := u.newest
	for range recentDrops {
		if d == nil {
			return
		}
		if skb != 0 && d.packet.SKB == skb {
			u.remove(d)
			return
		}
		d = d.older
	}
}

// expire drops what stayed unread for long, as in closed sockets.
func (u *unread) expire(now int64) {
	for u.oldest != nil && u.oldest.packet.Time < now-unreadFor {
		u.remove(u.oldest)
	}
}

// clear forgets everything: after a loss it is unknown what is still unread.
func (u *unread) clear() {
	for u.oldest != nil {
		u.doubtOne(u.oldest)
		u.remove(u.oldest)
	}
}

func (u *unread) remove(d *datagram) {
	queue := u.sockets[d.packet.Sock]
	if d.before != nil {
		d.before.next = d.next
	} else {
		queue.first = d.next
	}
	if d.next != nil {
		d.next.before = d.before
	} else {
		queue.last = d.before
	}
	if queue.first == nil {
		delete(u.sockets, d.packet.Sock)
	} else {
		u.sockets[d.packet.Sock] = queue
	}
	if d.older != nil {
		d.older.newer = d.newer
	} else {
		u.oldest = d.newer
	}
	if d.newer != nil {
		d.newer.older = d.older
	} else {
		u.newest = d.older
	}
	for at := u.bucket(d.packet.Sock, d.front); *at != nil; at = &(*at).alike {
		if *at == d {
			*at = d.alike
			break
		}
	}
	u.count--
	d.next, u.free = u.free, d
}

// atSocket matches a packet with others of its socket, and reports whether to pass it on.
func (s *Source) atSocket(p *Packet) bool {
	switch {
	case p.Kind == Drop:
		s.unread.drop(p.SKB)
	case p.Protocol != trace.TransportUDP:
	case p.Kind == Delivered:
		return s.unread.deliver(p)
	case p.Kind == Read:
		return s.unread.read(p, s.allWaitingKnown(p.Time))
	}
	return true
}
