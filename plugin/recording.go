package dnstrace

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/coredns/coredns/request"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

const (
	// inlineSpans come with the recording: enough for the usual chains, so
	// that a query costs one allocation.
	inlineSpans = 4
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
	size      int32
	bufsize   uint16
	opcode    uint8
	do        bool
	query     *recording // itself, or the query that set off a refresh
	startedAt int64      // of a refresh, in nanoseconds since the query's time
	doneAt    int64      // of a refresh, likewise

	mu       sync.Mutex // of the query, for the query and its refreshes
	closed   bool
	canceled bool   // of a refresh: its client went away
	merged   bool   // of a refresh: it was done before the answer, and counts to the query
	used     uint8  // of inline
	attempts uint16 // of the query and its refreshes
	root     span
	first    hopContext // of a refresh, only the context
	writer   responseWriter
	spans    []*span
	result   scope
	// Of the answer, or of its absence.
	rcode      int
	respSize   int
	sentAt     int64 // nanoseconds since the start
	answeredBy string
	cache      string
	outcome    string
	errText    string
	// Work in the background that started before the query was closed.
	background []*recording

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
	if ident != nil && ident.plugin != d {
		ident = nil // of a server block whose view did not match
	}
	rec := &recording{plugin: d, rcode: notSent, opcode: uint8(r.Opcode), size: int32(sizeOf(r))}
	if ident == nil {
		ident = &rec.own
		ident.init(d, w, r)
	}
	rec.ident = ident
	rec.query = rec
	rec.spans = rec.list[:0]
	rec.result.answeredAt = notAnswered
	var size uint16
	if opt := r.IsEdns0(); opt != nil {
		size, rec.do = opt.UDPSize(), opt.Do()
	}
	rec.bufsize = edns.Size(ident.proto(), size)

	rec.root.rec, rec.root.other, rec.root.name, rec.root.end = rec, parent, pluginName, open
	rec.writer.ResponseWriter, rec.writer.rec = w, rec
	first := rec.root.startChild(d.Next.Name(), nil)
	rec.first = hopContext{Context: ctx, span: first}
	if first.name == cachePlugin {
		first.md = metadataOf(ctx)
	}
	return rec
}

// sizeOf returns r.Len(), which takes longer than all else here, at once for
// what most queries are: a question, and an OPT without options.
func sizeOf(r *dns.Msg) int {
	const header, question, opt = headerSize, 2 + 2, 1 + 2 + 2 + 4 + 2
	if len(r.Question) != 1 || len(r.Answer)+len(r.Ns) > 0 || len(r.Extra) > 1 {
		return r.Len()
	}
	name := r.Question[0].Name
	// The root has one byte on the wire; every other name has one more than its
	// text, in which each dot stands for a length, unless there are escapes.
	if len(name) < 2 || name[len(name)-1] != '.' || strings.IndexByte(name, '\\') >= 0 {
		return r.Len()
	}
	size := header + len(name) + 1 + question
	if len(r.Extra) == 1 {
		o, ok := r.Extra[0].(*dns.OPT)
		if !ok || len(o.Option) > 0 {
			return r.Len()
		}
		size += opt
	}
	return size
}

// start adds a span. A child of a cache waits for place: only its context
// tells whether it works for the answer or in the background.
func (rec *recording) start(parent *span, name string) *span {
	q := rec.query
	q.mu.Lock()
	defer q.mu.Unlock()
	now := rec.now()
	if parent.name == cachePlugin && parent.state == stateRecorded {
		s := rec.newSpan(parent, name, now)
		s.state = stateUndecided
		return s
	}
	if rec.closed || parent.state != stateRecorded || len(rec.spans) >= maxSpans {
		return &span{rec: rec, parent: parent, name: name, end: open, state: stateIgnored}
	}
	s := rec.newSpan(parent, name, now)
	rec.spans = append(rec.spans, s)
	return s
}

// newSpan returns a span, from the memory of the query if there is some left: a
// refresh keeps it anyway. It is called with the lock. Setting the fields one by
// one is cheaper than to copy a span with its pointers.
func (rec *recording) newSpan(parent *span, name string, now int64) *span {
	q := rec.query
	var s *span
	if q.used < inlineSpans {
		s = &q.inline[q.used]
		q.used++
	} else {
		s = new(span)
	}
	s.rec, s.parent, s.name, s.start, s.end = rec, parent, name, now, open
	return s
}

// now returns the nanoseconds since the start of rec.
func (rec *recording) now() int64 { return since(rec.ident.time) - rec.startedAt }

// place decides what a span belongs to, now that its context is known. The
// cache gives work in the background a metadata map of its own.
func (rec *recording) place(ctx context.Context, s *span) {
	q, md := rec.query, metadataOf(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	s.md = md
	if s.state != stateUndecided {
		return
	}
	switch {
	case rec == q && (q.closed || md != s.parent.md):
		refresh := &recording{plugin: q.plugin, ident: q.ident, query: q, startedAt: s.start, first: hopContext{Context: ctx}}
		s.rec, s.start = refresh, 0
		refresh.spans = append(refresh.list[:0], s)
		if !q.closed {
			q.background = append(q.background, refresh)
		}
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
		rec.query.attempts++
		s.number = rec.query.attempts
		s.desperate = rec.plugin.chain.desperate()
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
		rec.canceled = rec.first.Err() != nil
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
		if err != nil { // what was written says so: rewrite answers for the plugins after it
			rec.outcome = trace.OutcomeError
		}
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
			refresh.merged = true
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

// publish counts a closed recording and hands its record to the outputs. That
// happens in the goroutine of the query, after the answer: what the record is
// made of is still in the processor's caches, nothing of it has to be kept, and
// nothing changes it any more.
func (rec *recording) publish() {
	b := builders.Get().(*builder)
	b.load(rec)
	b.count()
	if rate, keeps := rec.plugin.policy.keeps(b); keeps {
		line, kind := b.appendRecord(b.line[:0], rate)
		for _, o := range rec.plugin.outputs {
			o.queue.push(line, kind)
		}
		b.line = line
	}
	builders.Put(b)
}

func errorText(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText]
	}
	return s
}
