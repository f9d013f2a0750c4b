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
	plugin *Dnstrace
	front  *front // that it is part of
	rec    *recording
	use    uint64 // the use of the recording that it belongs to
}

// lock locks the recording, unless the query is over. Where nobody else can have
// it, that takes no lock.
func (w *responseWriter) lock() (rec *recording, ok bool) {
	if !w.front.shared {
		return w.rec, true
	}
	w.rec.mu.Lock()
	if w.use != w.rec.use {
		w.rec.mu.Unlock()
		return nil, false
	}
	return w.rec, true
}

// unlock undoes lock.
func (w *responseWriter) unlock() {
	if w.front.shared {
		w.rec.mu.Unlock()
	}
}

// WriteMsg implements dns.ResponseWriter.
func (w *responseWriter) WriteMsg(m *dns.Msg) error {
	w.answering(m)
	m = forClient(m, w.plugin.optionCode)
	err := w.ResponseWriter.WriteMsg(m)
	// Afterwards, because the server truncates the message on its way out.
	w.answered(m, m.Rcode, 0, err)
	return err
}

// Write implements dns.ResponseWriter.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.answering(nil)
	sent := withoutOptionInWire(b, w.plugin.optionCode)
	n, err := w.ResponseWriter.Write(sent)
	rcode := notSent
	if len(b) >= headerSize {
		rcode = int(b[3] & 0xf)
	}
	w.answered(nil, rcode, n, err)
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
func (w *responseWriter) answering(m *dns.Msg) {
	rec, ok := w.lock()
	if !ok {
		return
	}
	defer w.unlock()
	if rec.closed || rec.result.answeredAt != notAnswered {
		return
	}
	rec.outcome = trace.OutcomeAnswered
	if s := rec.deepest(); s != nil {
		rec.answeredBy = s.name
		if m != nil && m.Rcode == dns.RcodeRefused && !rec.asked(s) {
			rec.outcome = trace.OutcomeRefused
		}
	}
	rec.cache = rec.answeredCache(m)
}

// answered notes what was sent: m, or size bytes if it is nil. A zone transfer is many
// messages: their sizes add up, as in CoreDNS's log.
func (w *responseWriter) answered(m *dns.Msg, rcode, size int, err error) {
	rec, ok := w.lock()
	if !ok {
		return
	}
	defer w.unlock()
	switch {
	case rec.closed:
	case err == nil:
		rec.rcode = rcode
		switch {
		case m == nil:
			rec.respSize += size
		case rec.answer == nil && !w.front.shared:
			// Its size is asked for in few records if sampling is on, and takes its
			// time. The ordinary plugins leave what they have sent alone.
			rec.answer = m
		default:
			rec.respSize += m.Len()
		}
		rec.sentAt = rec.now()
		if rec.result.answeredAt == notAnswered {
			rec.result.answeredAt = rec.sentAt
		}
	case rec.result.answeredAt == notAnswered:
		rec.outcome = trace.OutcomeNoResponse
		rec.answeredBy = ""
		rec.errText = errorText("writing the response: " + err.Error())
	}
}

// deepest returns the span that works on the answer now: every hop waits for
// the one after it, so it is the last that is open.
func (rec *recording) deepest() *span {
	for i := len(rec.spans) - 1; i >= 0; i-- {
		if s := rec.spans[i]; s.end == open && s.peer == "" {
			return s
		}
	}
	return nil
}

// asked reports whether s asked an upstream, so that its answer is relayed.
func (rec *recording) asked(s *span) bool {
	for _, attempt := range rec.spans {
		if attempt.peer != "" && attempt.parent == s {
			return true
		}
	}
	return false
}

// nestedWriter notes when a nested lookup is answered.
type nestedWriter struct {
	dns.ResponseWriter
	span *span
}

// WriteMsg implements dns.ResponseWriter.
func (w *nestedWriter) WriteMsg(m *dns.Msg) error {
	w.span.setAnswered()
	return w.ResponseWriter.WriteMsg(m)
}
