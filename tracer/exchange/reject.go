package exchange

import (
	"encoding/binary"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// rejection is why a receiver cannot take a response.
type rejection uint8

const (
	accepted rejection = iota
	stray              // it comes from an unknown address, which may be translated on the way
	wrongID
	wrongQuestion
	wrongAddress
	wrongPort
	malformed
	incomplete
)

var rejections = [...]string{
	wrongID: trace.RejectedID, wrongQuestion: trace.RejectedQuestion, wrongAddress: trace.RejectedAddress, wrongPort: trace.RejectedPort,
	malformed: trace.RejectedMalformed, incomplete: trace.RejectedIncomplete,
}

// maxAtSocket bounds how many exchanges of a socket are looked at for one that a
// response was meant for.
const maxAtSocket = 64

// misfit handles a response whose ID and question no exchange has. It counts as rejected by
// the exchange of its socket and server that has its ID, else by the one that has its
// question, else by the only one; by none if it comes late, to an exchange that is over.
func (t *Table) misfit(p *capture.Packet, m *message, k key) {
	var sameID, asked, other *open
	sameIDs, sameQuestions, others := 0, 0, 0
	question := hash(m.question)
	n := 0
	for ex := range t.sockets.Of(socketOf(p, clientOf(p, true)).hash(), maxAtSocket) {
		n++
		switch {
		case !ex.expects(p.Src, p) || t.hasResponse(ex):
		case ex.key.id == m.id:
			sameID = ex
			sameIDs++
		case ex.key.question == question:
			asked = ex
			sameQuestions++
		default:
			other = ex
			others++
		}
	}
	switch {
	case n == 0, n == maxAtSocket, t.owed.has(k):
		t.stats.Orphans++
	case sameIDs == 1:
		t.refuse(sameID, p, wrongQuestion, m)
	case sameIDs == 0 && sameQuestions == 1:
		t.refuse(asked, p, wrongID, m)
	case sameIDs == 0 && sameQuestions == 0 && others == 1:
		t.refuse(other, p, wrongID, m)
	default:
		t.stats.Orphans++
	}
}

// hasResponse tells whether the exchange has its response: what else comes is not for it.
func (t *Table) hasResponse(ex *open) bool { return ex.answer != nil && t.answered(ex) }

// unreadable handles a datagram without a question: a response that does not repeat it, as
// some servers answer what they cannot read, or a malformed one. It returns its exchange.
func (t *Table) unreadable(p *capture.Packet, m *message) *open {
	h, bare := parseBare(p.Payload)
	if bare {
		m.header = h
	}
	ex := t.unreadableOf(p, h.id, bare)
	if ex == nil {
		t.stats.NotDNS++
		return nil
	}
	m.flags |= bitQR
	if !bare {
		t.refuse(ex, p, malformed, m)
		return nil
	}
	if ex.key.id != h.id {
		t.refuse(ex, p, wrongID, m)
		return nil
	}
	ex.sent = sent(p, t.buffers.in(p))
	t.buffers.note(p, ex, true)
	if !t.judge(ex, p, m) {
		return nil
	}
	return ex
}

// unreadableOf returns the one exchange that such a response may be of.
func (t *Table) unreadableOf(p *capture.Packet, id uint16, bare bool) *open {
	if b := t.buffers.in(p); b != nil && b.response && !sent(p, b) && b.ex.key.protocol == p.Protocol && (!bare || b.ex.key.id == id) {
		return b.ex
	}
	// What is not captured cannot be judged.
	if !bare && len(p.Payload) < min(p.PayloadLen, headerLen+5) {
		return nil
	}
	var sameID, waiting, any *open // waiting: it had none that was rejected
	sameIDs, allWaiting, all, n := 0, 0, 0, 0
	if len(p.Payload) >= 2 {
		id = binary.BigEndian.Uint16(p.Payload)
	}
	for ex := range t.sockets.Of(socketOf(p, clientOf(p, true)).hash(), maxAtSocket) {
		n++
		known := ex.expects(p.Src, p)
		if !known && !bare || t.hasResponse(ex) {
			continue
		}
		if ex.key.id == id {
			sameID = ex
			sameIDs++
		}
		if known {
			any = ex
			all++
		}
		if known && len(ex.rejected) == 0 {
			waiting = ex
			allWaiting++
		}
	}
	switch {
	case n == maxAtSocket:
	case sameIDs == 1:
		return sameID
	case sameIDs == 0 && all == 1:
		return any
	case sameIDs == 0 && allWaiting == 1:
		return waiting
	}
	return nil
}

// echoed handles a query that comes back from a server to the port that it was sent from: a
// response without the QR bit.
func (t *Table) echoed(p *capture.Packet, m *message) bool {
	if p.Protocol != trace.TransportUDP || t.isServer(p.Dst.Port(), p.DstServer) || !t.isServer(p.Src.Port(), p.SrcServer) {
		return false
	}
	s := t.at(keyOf(p, &m.header, clientOf(p, true), nil))
	for i := range s.len() {
		if ex := s.at(i); ex.expects(p.Src, p) {
			t.refuse(ex, p, malformed, m)
			return true
		}
	}
	return false
}

// refuse records a datagram that the client of an exchange cannot take, where it reaches the
// client. Its other sightings do not belong to the exchange.
func (t *Table) refuse(ex *open, p *capture.Packet, why rejection, m *message) {
	j, known := ex.journey(p, true)
	if !known {
		j.why = why
	}
	t.buffers.note(p, ex, true)
	if p.Kind == capture.TX && ex.goesTo(p.Src) {
		ex.learn(p, t.cfg.Names, false)
	}
	t.reject(ex, p, j, why, m)
}

// reject puts a response that cannot be taken on the record, once, where the client is.
func (t *Table) reject(ex *open, p *capture.Packet, j *journey, why rejection, m *message) {
	if p.Kind == capture.Drop && !ex.noSocketOfClient(p) || j.counted || !(ex.atClient(p) || why == wrongAddress || why == wrongPort) {
		return
	}
	j.counted = true
	ex.last = max(ex.last, p.Time)
	r := trace.Rejection{Why: rejections[why], Src: p.Src, Size: m.size, Offset: trace.Seconds(p.Time - ex.first)}
	if why != malformed || m.question != nil && m.response() {
		r.RCode = trace.RCodeName(int(m.flags & 0xf))
	}
	t.rejected(ex, r)
}

func (t *Table) rejected(ex *open, r trace.Rejection) {
	if len(ex.rejected) >= maxRejected {
		t.stats.Sightings++
		return
	}
	ex.rejected = append(ex.rejected, r)
	if !ex.closed {
		t.refused[ex] = struct{}{}
	}
	t.account(ex)
}
