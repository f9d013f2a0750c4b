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
	// inlineSpans is how many spans a recording has room for from the start:
	// enough for the usual chains.
	inlineSpans = 8
	// maxSpans bounds the memory of a query that loops inside CoreDNS.
	maxSpans = 128
	// maxErrorText bounds the error text of a record, and with it the record.
	maxErrorText = 512
)

// notSent is the rcode of a query that got no response.
const notSent = -1

// recording is a query in flight, or work in the background that it set off.
type recording struct {
	query *recording // itself, or the query that set off a refresh

	mu    sync.Mutex // of the query, for the query and its refreshes
	use   uint64     // how many queries it was used for before
	spare *front     // of the query before, if nobody else has it
	list  [inlineSpans]*span
	observation
}

// observation is what a recording holds of one query. Once closed is set, what the
// record is built from does not change any more, so the record is made without
// the lock.
type observation struct {
	ident *identity
	own   identity // what ident points to, unless Metadata made one

	plugin    *Dnstrace
	front     *front // nil for a refresh
	size      int32
	bufsize   uint16
	opcode    uint8
	do        bool
	startedAt int64           // of a refresh, in nanoseconds since the query's time
	doneAt    int64           // of a refresh, likewise
	ctx       context.Context // of a refresh

	kept     bool // somebody else refers to ident
	closed   bool
	canceled bool   // of a refresh: its client went away
	merged   bool   // of a refresh: it was done before the answer, and counts to the query
	attempts uint16 // of the query and its refreshes
	tried    bool   // there were attempts when the recording was closed
	decision decision
	spans    []*span
	result   scope
	// Of the answer, or of its absence.
	rcode      int
	respSize   int
	answer     *dns.Msg // of which the size is not yet in respSize, or nil
	sentAt     int64    // nanoseconds since the start
	answeredBy string
	cache      string
	outcome    string
	errText    string
	// Work in the background that started before the query was closed.
	background []*recording
}

// scope is a lookup as its client sees it: the query itself, or a nested one.
type scope struct {
	answeredAt int64 // nanoseconds since the start, notAnswered if it was not
	err        error
}

const notAnswered = -1

// begin starts the recording of a query, or returns nil for a query that makes
// no record of its own: it is not in our zones, or part of another one.
func (d *Dnstrace) begin(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *front {
	if d.Next == nil || !d.records(r) {
		return nil
	}
	other := ot.SpanFromContext(ctx)
	if _, ok := other.(*span); ok || ctx.Value(hopKey{}) != nil {
		return nil // see spanOf
	}
	ident := identityOf(ctx)
	if ident != nil && ident.req != r {
		return nil
	}
	if ident != nil && ident.plugin != d {
		ident = nil // of a server block whose view did not match
	}
	rec, f := d.newRecording()
	if ident == nil {
		ident = &rec.own
		ident.init(d, w, r)
	}
	rec.ident = ident
	rec.rcode, rec.opcode, rec.size = notSent, uint8(r.Opcode), int32(sizeOf(r))
	rec.result.answeredAt = notAnswered
	var size uint16
	if opt := r.IsEdns0(); opt != nil {
		size, rec.do = opt.UDPSize(), opt.Do()
	}
	rec.bufsize = edns.Size(ident.proto(), size)
	f.writer.ResponseWriter = w
	f.start(ctx, other)
	return f
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

// now returns the nanoseconds since the start of rec.
func (rec *recording) now() int64 { return since(rec.ident.time) - rec.startedAt }

// end closes the recording of a query whose plugins returned, and hands it to
// the outputs.
func (rec *recording) end(rcode int, err error) {
	rec.lockToEnd()
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

// lockToEnd locks the recording of a query whose plugins returned.
func (rec *recording) lockToEnd() {
	if other := rec.front.first.other; other != nil {
		other.Finish()
	}
	if rec.front.shared {
		rec.mu.Lock()
	}
}

// endPanic closes the recording of a query in which a plugin panicked.
func (rec *recording) endPanic(cause any) {
	rec.lockToEnd()
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
	state := request.Request{W: rec.front.writer.ResponseWriter, Req: rec.ident.req}
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
	rec.closed, rec.tried = true, rec.attempts > 0
	wanted := !rec.unremarkable() || rec.chosen()
	if wanted { // else nobody reads these, and they are not for free
		rec.front.first.end = rec.now()
		if rec.answer != nil {
			rec.respSize += rec.answer.Len()
		}
	}
	if rec.front.shared {
		rec.mu.Unlock()
	}
	if wanted {
		rec.own.alone = rec.ident == &rec.own && !rec.front.shared
		rec.publish()
	} else {
		countLookup(rec.cache)
	}
	for _, refresh := range done {
		refresh.publish()
	}
	rec.recycle()
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

// unremarkable reports whether rec is a query that is recorded only if sampling
// chooses it, which shows before anything is made of its spans.
func (rec *recording) unremarkable() bool {
	return rec == rec.query && !rec.tried && !rec.failed() && rec.took() < rec.plugin.policy.slow
}

// chosen reports whether sampling chooses rec if it is unremarkable.
func (rec *recording) chosen() bool {
	if rec.decision == undecided {
		rec.decision = leftOut
		if rec.plugin.policy.chosen(rec.ident) {
			rec.decision = picked
		}
	}
	return rec.decision == picked
}

// mayBeWanted reports whether rec may become a record, from what is known while
// plugins return. Where it may not, the clock is not read for them, which costs as
// much as half of their hop: of a query that fails after it was answered their
// durations are unknown.
func (rec *recording) mayBeWanted() bool {
	return rec.result.answeredAt == notAnswered || !rec.unremarkable() || rec.chosen()
}

// decision is what sampling says of a query that is unremarkable.
type decision uint8

const (
	undecided decision = iota
	picked
	leftOut
)

func errorText(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText]
	}
	return s
}
