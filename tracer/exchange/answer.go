package exchange

import (
	"bytes"
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// answer is what a response says.
type answer struct {
	answers   []trace.Answer
	extended  *trace.ExtendedError
	size      int32
	records   int32 // in the answer section
	minTTL    uint32
	rcode     uint16
	flags     uint16
	hasTTL    bool
	part      bool      // size is that of the first fragment
	rejection rejection // why its receiver cannot take it
}

func readAnswer(m *message) answer {
	s := parseSections(m.body, m.header)
	a := answer{
		rcode: m.flags&0xf | uint16(s.edns.rcodeHigh)<<4, flags: m.flags, size: int32(m.size), part: m.part, records: int32(m.counts[0]),
		answers: s.answers, minTTL: s.minTTL, hasTTL: s.hasTTL, extended: s.edns.extended,
	}
	// A response with TC is asked for again over TCP; what a fragment lacks is in the others.
	if m.flags&bitTC == 0 && !m.part && len(m.body) >= m.size {
		a.rejection = s.rejection
	}
	return a
}

// take records the response of the exchange; of several the first that was seen counts. The
// messages of a zone transfer count together.
func (ex *open) take(a *answer, m *message) {
	switch {
	case ex.answer == nil:
		ex.said = *a
		ex.answer = &ex.said
		ex.respelled = len(m.question) > 0 && !bytes.Equal(m.question, ex.question)
	case ex.transfers():
		ex.answer.size += a.size
		ex.answer.records += a.records
	}
}

// judge tells whether the receiver of a datagram with a response can take it. A rejection is
// recorded where the client is.
func (t *Table) judge(ex *open, p *capture.Packet, m *message) bool {
	j, known := ex.journey(p, true)
	var a answer
	if !known {
		a = readAnswer(m)
		j.why = a.rejection
		if j.why == accepted && !ex.mayAnswer(p) {
			j.why = stray
		}
	}
	if (j.why == accepted || j.why == stray) && (ex.atClient(p) || ex.noSocketOfClient(p)) {
		ex.arrives(j, p)
	}
	switch {
	case j.why == accepted && ex.answer == nil:
		if known {
			a = readAnswer(m)
		}
		ex.take(&a, m)
	case j.why == stray && ex.guess == nil && !known:
		guess := a
		ex.guess = &guess
	case j.why > stray:
		if p.Kind == capture.TX && ex.goesTo(p.Src) {
			ex.learn(p, t.cfg.Names, false)
		}
		t.reject(ex, p, j, j.why, m)
		return false
	}
	return true
}

// arrives decides whether the client takes a response that reaches it: it has to come from
// the address that was asked (RFC 5452, section 9.1).
func (ex *open) arrives(j *journey, p *capture.Packet) {
	switch {
	case p.Src == ex.server, p.Src == ex.sentDst, ex.server.Addr().IsMulticast(), j.taken, p.NAT != nil && p.NAT.Original.Dst == ex.server:
		j.why, j.taken = accepted, true
	case p.Kind == capture.TX: // on its way to a client beyond what is observed
	case p.Src.Addr() == ex.server.Addr():
		j.why = wrongPort
	default:
		j.why = wrongAddress
	}
}

// expects tells whether responses of the exchange come from a source: at least its server's
// address does.
func (ex *open) expects(src netip.AddrPort, p *capture.Packet) bool {
	return ex.goesTo(src) || p.NAT != nil && ex.goesTo(p.NAT.Original.Dst)
}
