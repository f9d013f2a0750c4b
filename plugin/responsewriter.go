package dnstrace

import (
	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// headerSize is the size of a DNS message's header; the low half of its fourth
// byte is the rcode (RFC 1035, section 4.1.1).
const headerSize = 12

// responseWriter notes the answer that goes to the client.
type responseWriter struct {
	dns.ResponseWriter
	q *query
}

// WriteMsg implements dns.ResponseWriter.
func (w *responseWriter) WriteMsg(m *dns.Msg) error {
	w.q.answering(m)
	m = forClient(m, w.q.plugin.optionCode)
	err := w.ResponseWriter.WriteMsg(m)
	// Afterwards, because the server truncates the message on its way out.
	w.q.answered(m.Rcode, m.Len(), err)
	return err
}

// Write implements dns.ResponseWriter.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.q.answering(nil)
	sent := withoutOptionInWire(b, w.q.plugin.optionCode)
	n, err := w.ResponseWriter.Write(sent)
	rcode := notSent
	if len(b) >= headerSize {
		rcode = int(b[3] & 0xf)
	}
	w.q.answered(rcode, n, err)
	return n + len(b) - len(sent), err
}

// forClient returns m without the option, which an upstream may send unasked. A
// signed answer cannot be changed.
func forClient(m *dns.Msg, code uint16) *dns.Msg {
	if len(m.Extra) == 0 || signed(m) {
		return m
	}
	return withoutOption(m, code)
}

// strippingWriter keeps the option from the client of a query that makes no record.
type strippingWriter struct {
	dns.ResponseWriter
	code uint16
}

// WriteMsg implements dns.ResponseWriter.
func (w *strippingWriter) WriteMsg(m *dns.Msg) error {
	return w.ResponseWriter.WriteMsg(forClient(m, w.code))
}

// Write implements dns.ResponseWriter.
func (w *strippingWriter) Write(b []byte) (int, error) {
	sent := withoutOptionInWire(b, w.code)
	n, err := w.ResponseWriter.Write(sent)
	return n + len(b) - len(sent), err
}

// answering notes who answers a query, while that plugin is at it. m is nil for
// a message in wire format.
func (q *query) answering(m *dns.Msg) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rec := q.rec
	if rec == nil || rec.answeredAt != notAnswered {
		return
	}
	rec.outcome = trace.OutcomeAnswered
	if hop := rec.deepest(); hop != none {
		rec.answeredBy = rec.hops[hop].name
		if m != nil && m.Rcode == dns.RcodeRefused && !rec.asked(hop) {
			rec.outcome = trace.OutcomeRefused
		}
	}
	rec.cache = rec.answeredCache(m, q.hasRefreshed())
}

// hasRefreshed reports whether a cache has already done work in the background.
func (q *query) hasRefreshed() bool {
	for _, f := range q.refreshes {
		if f.doneAt != open {
			return true
		}
	}
	return false
}

// answered notes what was sent. A zone transfer is many messages: their sizes add up, as in
// CoreDNS's log.
func (q *query) answered(rcode, size int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rec := q.rec
	switch {
	case rec == nil:
	case err == nil:
		rec.rcode = rcode
		rec.respSize += size
		rec.sentAt = q.now()
		if rec.answeredAt == notAnswered {
			rec.answeredAt = rec.sentAt
		}
	case rec.answeredAt == notAnswered:
		rec.outcome = trace.OutcomeNoResponse
		rec.answeredBy = ""
		rec.errText = errorText("writing the response: " + err.Error())
	}
}
