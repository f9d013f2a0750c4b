package exchange

import (
	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// connecting notes a packet that asks for a connection, or that accepts one. A
// connection that cannot be opened asks nothing, but somebody waits for it: it is
// an exchange without a question, whose query is the SYN. A SYN that is sent again is
// of the same attempt.
func (t *Table) connecting(c *conn, p *capture.Packet, accepts bool) {
	ex := c.attempt
	if ex == nil || !accepts && c.attemptSeq != p.TCPSeq {
		if accepts {
			return
		}
		ex = t.beginConnect(c, p)
		c.attempt, c.attemptSeq = ex, p.TCPSeq
	}
	ex.sent = sent(p, t.buffers.in(p))
	if p.Kind == capture.Delivered && !accepts {
		ex.listenFull = p.ListenFull
	}
	if accepts {
		t.translatedResponse(ex, p)
	} else {
		t.translated(ex, p, c.source)
	}
	t.see(ex, p, accepts, true)
	t.buffers.note(p, ex, accepts)
	if accepts && t.accepted(ex) {
		t.connected(c, p.Time)
	}
}

// accepted tells whether the client's end of a connection is seen to be open. Where its
// packets are not seen to arrive, what it sends next shows it.
func (t *Table) accepted(ex *open) bool {
	left := ex.left()
	return t.responseArrived(ex, left).Seen() || !left.Seen() && t.answered(ex)
}

// connected ends an attempt that succeeded: it is no exchange, unless it was reported
// before.
func (t *Table) connected(c *conn, now int64) {
	ex := c.attempt
	c.attempt = nil
	switch {
	case ex == nil || ex.closed:
	case ex.reported != 0:
		ex.connected, ex.last = true, now
		t.end(ex)
	default:
		t.remove(ex)
	}
}

func (t *Table) beginConnect(c *conn, p *capture.Packet) *open {
	ex := t.newOpen(key{client: c.client, netns: c.socket.netns, protocol: p.Protocol}, p, c.server)
	ex.connects, ex.bufSize, ex.conn = true, dns.MaxMsgSize, c
	t.add(ex)
	return ex
}

// resets notes a segment that refuses or ends a connection: what waits for something
// from it gets nothing.
func (t *Table) resets(c *conn, p *capture.Packet) {
	if p.Kind == capture.Drop {
		return
	}
	reset := func(ex *open) {
		if ex.closed || t.answered(ex) {
			return
		}
		if ex.reset == nil {
			ex.reset = &trace.Reset{Src: p.Src, Offset: trace.Seconds(p.Time - ex.first)}
			ex.last = max(ex.last, p.Time)
		}
		t.end(ex)
	}
	if c.attempt != nil {
		reset(c.attempt)
	}
	for i := range c.query.recent {
		reset(c.query.recent[i].ex)
	}
}

// closes ends the exchanges on a connection of which the server has sent all that it
// will.
func (t *Table) closes(c *conn) {
	for i := range c.query.recent {
		if ex := c.query.recent[i].ex; !ex.closed && ex.answer == nil {
			t.end(ex)
		}
	}
}

// end notes that no response can come any more: the exchange is over soon.
func (t *Table) end(ex *open) {
	ex.ended = true
	t.hurry(ex)
}
