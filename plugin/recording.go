package dnstrace

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

const (
	// inlineSpans come with the recording: enough for the usual chains, so
	// that a query costs one allocation.
	inlineSpans = 5
	// maxSpans bounds the memory of a query that loops inside CoreDNS.
	maxSpans = 128
	// maxErrorText bounds the error text of a record, and with it the record.
	maxErrorText = 512
)

// notSent is the rcode of a query that got no response.
const notSent = -1

// recording is a query in flight, or work in the background that it set off.
// It is not reused: a plugin that works in the background keeps the span, and
// with it the recording, for as long as it likes. Once closed is set, what the
// record is built from does not change any more, so the writers read it
// without the lock.
type recording struct {
	ident *identity
	own   identity // what ident points to, unless Metadata made one

	plugin    *Dnstrace
	zone      string
	server    netip.AddrPort
	opcode    int
	size      int
	bufsize   int
	do        bool
	query     *recording // itself, or the query that set off a refresh
	startedAt int64      // of a refresh, in nanoseconds since the query's time
	doneAt    int64      // of a refresh, likewise

	mu     sync.Mutex // of the query, for the query and its refreshes
	closed bool
	root   span
	first  hopContext
	writer responseWriter
	spans  []*span
	result scope
	// Of the answer, or of its absence.
	rcode      int
	respSize   int
	sentAt     int64 // nanoseconds since the start
	answeredBy string
	cache      string
	outcome    string
	errText    string
	// Work in the background: merged was done before the answer, and counts to
	// the query; the others make records of their own.
	background []*recording
	merged     []*recording

	used   int
	inline [inlineSpans]span
	list   [inlineSpans + 2]*span
}

// scope is a lookup as its client sees it: the query itself, or a nested one.
type scope struct {
	answeredAt int64 // nanoseconds since the start, notAnswered if it was not
	err        error
}

const notAnswered = -1

// begin starts the recording of a query, or returns nil for a query that makes
// no record of its own: it is not in our zones, or part of another one.
func (d *Dnstrace) begin(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *recording {
	parent := ot.SpanFromContext(ctx)
	if _, nested := parent.(*span); nested || d.Next == nil || !d.records(r) {
		return nil
	}
	ident := identityOf(ctx)
	if ident != nil && ident.req != r {
		return nil
	}
	rec := &recording{plugin: d, rcode: notSent, opcode: r.Opcode, size: r.Len()}
	if ident == nil {
		ident = &rec.own
		ident.init(w, r)
	}
	rec.ident = ident
	rec.query = rec
	rec.spans = rec.list[:0]
	rec.result.answeredAt = notAnswered
	rec.server, _ = address(w.LocalAddr())
	rec.zone = plugin.Zones(d.serverZones).Matches(ident.q.Name)

	state := request.Request{W: w, Req: r}
	rec.bufsize = state.Size()
	rec.do = state.Do()

	rec.root = span{rec: rec, other: parent, name: pluginName, end: open}
	rec.writer = responseWriter{ResponseWriter: w, rec: rec}
	first := rec.root.startChild(d.Next.Name(), nil)
	rec.first = hopContext{Context: ctx, span: first}
	if first.name == cachePlugin {
		first.md = metadataOf(ctx)
	}
	return rec
}

// start adds a span. A child of a cache waits for place: only its context
// tells whether it works for the answer or in the background.
func (rec *recording) start(parent *span, name string) *span {
	q := rec.query
	q.mu.Lock()
	defer q.mu.Unlock()
	now := rec.now()
	if parent.name == cachePlugin && parent.state == stateRecorded {
		return &span{rec: rec, parent: parent, name: name, start: now, end: open, state: stateUndecided}
	}
	if rec.closed || parent.state != stateRecorded || len(rec.spans) >= maxSpans {
		return &span{rec: rec, parent: parent, name: name, end: open, state: stateIgnored}
	}
	var s *span
	if rec.used < inlineSpans {
		s = &rec.inline[rec.used]
		rec.used++
	} else {
		s = new(span)
	}
	*s = span{rec: rec, parent: parent, name: name, start: now, end: open}
	rec.spans = append(rec.spans, s)
	return s
}

// now returns the nanoseconds since the start of rec.
func (rec *recording) now() int64 { return since(rec.ident.time) - rec.startedAt }

// place decides what a span belongs to, now that its context is known. The
// cache gives work in the background a metadata map of its own.
func (rec *recording) place(s *span, md uintptr) {
	q := rec.query
	q.mu.Lock()
	defer q.mu.Unlock()
	s.md = md
	if s.state != stateUndecided {
		return
	}
	switch {
	case rec == q && (q.closed || md != s.parent.md):
		refresh := &recording{plugin: q.plugin, ident: q.ident, query: q, startedAt: s.start}
		s.rec, s.start = refresh, 0
		refresh.spans = append(refresh.list[:0], s)
		q.background = append(q.background, refresh)
		s.state = stateRecorded
	case rec.closed || len(rec.spans) >= maxSpans:
		s.state = stateIgnored
	default:
		rec.spans = append(rec.spans, s)
		s.state = stateRecorded
	}
}

func (rec *recording) setPeer(s *span, peer string) {
	rec.query.mu.Lock()
	if !rec.closed {
		s.peer = peer
	}
	rec.query.mu.Unlock()
}

// end finishes a span, and with the first span of a refresh the refresh.
func (rec *recording) end(s *span) {
	q := rec.query
	q.mu.Lock()
	if rec.closed || s.end != open {
		q.mu.Unlock()
		return
	}
	s.end = rec.now()
	refreshed := rec != q && rec.spans[0] == s
	if refreshed {
		rec.closed = true
		rec.doneAt = rec.startedAt + s.end
	}
	publish := refreshed && q.closed
	q.mu.Unlock()
	if publish {
		rec.publish()
	}
}

// setError notes how a nested lookup ended.
func (s *span) setError(err error) {
	q := s.rec.query
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.rec.closed || s.state != stateRecorded {
		return
	}
	if s.nested == nil {
		s.nested = &scope{answeredAt: notAnswered}
	}
	s.nested.err = err
}

// setAnswered notes when a nested lookup was answered.
func (s *span) setAnswered() {
	q := s.rec.query
	q.mu.Lock()
	defer q.mu.Unlock()
	if !s.rec.closed && s.state == stateRecorded && s.nested == nil {
		s.nested = &scope{answeredAt: s.rec.now()}
	}
}

// finish closes the recording of a query whose plugins returned, and hands it
// to the outputs.
func (rec *recording) finish(rcode int, err error) {
	rec.inline[0].Finish()
	rec.mu.Lock()
	rec.result.err = err
	if err != nil {
		rec.errText = errorText(err.Error())
	}
	switch {
	case rec.result.answeredAt != notAnswered: // the writer noted the rest
	case rec.outcome == trace.OutcomeNoResponse: // writing it failed
	case plugin.ClientWrite(rcode):
		rec.outcome = trace.OutcomeNoResponse
		rec.cache = rec.unansweredCache()
	default:
		rec.serverAnswers(rcode)
	}
	rec.close()
}

// unwind is deferred: it closes the recording of a query in which a plugin
// panicked. CoreDNS recovers from panics, and the record helps to find them.
// The stack is still whole when the panic is raised again.
func (rec *recording) unwind() {
	if rec.closed {
		return
	}
	cause := recover()
	rec.finishPanic(cause)
	if cause != nil {
		panic(cause)
	}
}

func (rec *recording) finishPanic(cause any) {
	rec.inline[0].Finish()
	rec.mu.Lock()
	rec.errText = errorText(fmt.Sprintf("panic: %v", cause))
	if rec.result.answeredAt == notAnswered {
		rec.serverAnswers(dns.RcodeServerFailure)
	}
	rec.outcome = trace.OutcomeError
	rec.close()
}

// serverAnswers notes the answer that the server makes of a returned rcode when
// no plugin wrote one: errorFunc in core/dnsserver/server.go.
func (rec *recording) serverAnswers(rcode int) {
	answer := new(dns.Msg).SetRcode(rec.ident.req, rcode)
	state := request.Request{W: rec.writer.ResponseWriter, Req: rec.ident.req}
	state.SizeAndDo(answer)
	rec.rcode, rec.respSize = rcode, answer.Len()
	rec.outcome = trace.OutcomeError
	if rcode == dns.RcodeRefused {
		rec.outcome = trace.OutcomeRefused
	}
	rec.cache = rec.unansweredCache()
	rec.sentAt = rec.now()
}

// close ends the recording. It is called with the lock and releases it.
func (rec *recording) close() {
	answered := rec.result.answeredAt
	if answered == notAnswered {
		answered = rec.now()
	}
	var done []*recording
	for _, refresh := range rec.background {
		switch {
		case !refresh.closed:
		case refresh.doneAt <= answered:
			rec.merged = append(rec.merged, refresh)
		default:
			done = append(done, refresh)
		}
	}
	rec.closed = true
	rec.mu.Unlock()
	rec.publish()
	for _, refresh := range done {
		refresh.publish()
	}
}

// publish hands the record to the outputs. Nothing changes it any more.
func (rec *recording) publish() {
	for _, o := range rec.plugin.outputs {
		o.queue.push(rec)
	}
}

func errorText(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText]
	}
	return s
}
