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
	rec    *recording
	use    uint64 // the use of the recording that it belongs to
}

// lock locks the recording, unless the query is over.
func (w *responseWriter) lock() (rec *recording, ok bool) {
	w.rec.mu.Lock()
	if w.use != w.rec.use {
		w.rec.mu.Unlock()
		return nil, false
	}
	return w.rec, true
}

// WriteMsg implements dns.ResponseWriter.
func (w *responseWriter) WriteMsg(m *dns.Msg) error {
	w.answering(m)
	if code := w.plugin.optionCode; len(m.Extra) > 0 && !signed(m) {
		m = withoutOption(m, code) // an upstream may send one unasked
	}
	err := w.ResponseWriter.WriteMsg(m)
	// Afterwards, because the server truncates the message on its way out.
	w.answered(m.Rcode, m.Len(), err)
	return err
}

// Write implements dns.ResponseWriter.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.answering(nil)
	n, err := w.ResponseWriter.Write(b)
	rcode := notSent
	if len(b) >= headerSize {
		rcode = int(b[3] & 0xf)
	}
	w.answered(rcode, n, err)
	return n, err
}

// answering notes who answers a query, while that plugin is at it. m is nil for
// a message in wire format.
func (w *responseWriter) answering(m *dns.Msg) {
	rec, ok := w.lock()
	if !ok {
		return
	}
	defer rec.mu.Unlock()
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

// answered notes what was sent. A zone transfer is many messages: their sizes
// add up, as in CoreDNS's log.
func (w *responseWriter) answered(rcode, size int, err error) {
	rec, ok := w.lock()
	if !ok {
		return
	}
	defer rec.mu.Unlock()
	switch {
	case rec.closed:
	case err == nil:
		rec.rcode = rcode
		rec.respSize += size
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
