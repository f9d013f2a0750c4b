package dnstrace

import (
	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// headerSize is the size of a DNS message's header; the low half of its fourth byte is the rcode (RFC 1035,
// section 4.1.1).
const headerSize = 12

// responseWriter removes the option from answers, since an upstream may send it unasked, and records the answer.
type responseWriter struct {
	dns.ResponseWriter
	code  uint16 // of the option
	q     *query // nil: the answer is not recorded
	noOPT bool   // the query had no OPT before it was stamped
}

// WriteMsg implements dns.ResponseWriter.
func (w *responseWriter) WriteMsg(m *dns.Msg) error {
	w.q.answering(m)
	if w.noOPT && !trace.Signed(m) {
		m = withoutOPT(m)
	} else if len(m.Extra) > 0 {
		m = trace.WithoutTraceparent(m, w.code)
	}
	err := w.ResponseWriter.WriteMsg(m)
	if w.q != nil { // afterwards, because the server truncates the message on its way out
		w.q.answered(m.Rcode, m.Len(), err)
	}
	return err
}

// Write implements dns.ResponseWriter.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.q.answering(nil)
	sent := trace.WithoutTraceparentInWire(b, w.code)
	n, err := w.ResponseWriter.Write(sent)
	rcode := notSent
	if len(b) >= headerSize {
		rcode = int(b[3] & 0xf)
	}
	w.q.answered(rcode, n, err)
	return n + len(b) - len(sent), err
}

// answering records which plugin answers, while it does. m is nil for a message in wire format.
func (q *query) answering(m *dns.Msg) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.answeredAt != open {
		return
	}
	q.outcome = trace.OutcomeAnswered
	if hop := q.deepest(); hop != nil {
		q.answeredBy = hop.name
		if m != nil && m.Rcode == dns.RcodeRefused && !q.asked(hop) {
			q.outcome = trace.OutcomeRefused
		}
	}
	q.cache = q.cacheStatus(true, m)
}

// answered records what was sent. The sizes of the messages of a zone transfer add up, as in CoreDNS's log.
func (q *query) answered(rcode, size int, err error) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
	case err == nil:
		q.rcode = rcode
		q.respSize += size
		q.sentAt = q.now()
		if q.answeredAt == open {
			q.answeredAt = q.sentAt
		}
	case q.answeredAt == open:
		q.outcome, q.answeredBy = trace.OutcomeNoResponse, ""
		q.errText = errorText("writing the response: " + err.Error())
	}
}
