package dnstrace

import (
	"context"
	"sync"

	ot "github.com/opentracing/opentracing-go"
)

// front is what the plugins after this one get to see of a recording: the
// context, the writer and the first span. They may keep it as long as they
// like, so it is made anew for each query, where the recording behind it is
// used again.
type front struct {
	ctx    hopContext
	writer responseWriter
	span   span
	second span // if there is one: with it the usual hit makes one allocation less
	done   bool // the recording is closed, and may be another query's by now
}

// recordings are the recordings that nobody uses just now.
var recordings = sync.Pool{New: func() any {
	rec := new(recording)
	rec.query = rec
	return rec
}}

// newRecording returns a recording for a query, with its front.
func (d *Dnstrace) newRecording() (*recording, *front) {
	rec := recordings.Get().(*recording)
	f := new(front)
	f.writer.rec, f.writer.plugin, f.writer.use = rec, d, rec.use
	f.span.rec, f.span.use = rec, rec.use
	f.ctx.span = &f.span
	rec.plugin, rec.front, rec.spans = d, f, rec.list[:0]
	return rec, f
}

// recycle gives a closed recording back for another query. From here on, what
// was made for this one finds that out and leaves it alone. Where a cache may
// work in the background, for which the query is still needed, it is not given
// back.
func (rec *recording) recycle() {
	rec.mu.Lock()
	if rec.plugin.chain.refreshes || rec.kept || len(rec.background) > 0 {
		rec.mu.Unlock()
		return
	}
	rec.observation = observation{}
	rec.use++
	rec.mu.Unlock()
	recordings.Put(rec)
}

// start starts the first span, at the time of the query. parent is the span of
// another tracer, or nil.
func (f *front) start(parent ot.Span) {
	s := &f.span
	s.name, s.end = s.rec.plugin.Next.Name(), open
	if s.name == cachePlugin {
		s.md = metadataOf(&f.ctx)
	}
	if parent != nil {
		s.other = parent.Tracer().StartSpan(s.name, ot.ChildOf(parent.Context()))
	}
	s.rec.spans = append(s.rec.spans, s)
}

// finish closes the recording of a query whose plugins returned.
func (f *front) finish(rcode int, err error) {
	f.done = true
	f.span.rec.end(rcode, err)
}

// unwind is deferred: it closes the recording of a query in which a plugin
// panicked. CoreDNS recovers from panics, and the record helps to find them.
// The stack is still whole when the panic is raised again.
func (f *front) unwind() {
	if f.done {
		return
	}
	f.done = true
	cause := recover()
	f.span.rec.endPanic(cause)
	if cause != nil {
		panic(cause)
	}
}

// hopContext is a context with a span, without the allocation of
// ot.ContextWithSpan.
type hopContext struct {
	context.Context
	span *span
}

// Value implements context.Context.
func (c *hopContext) Value(key any) any {
	if key == spanKey {
		return c.span
	}
	return c.Context.Value(key)
}

// spanKey is the context key under which OpenTracing keeps the active span. It
// is not exported, so it is learned by asking for the span.
var spanKey = func() any {
	probe := &keyProbe{Context: context.Background()}
	ot.SpanFromContext(probe)
	return probe.key
}()

type keyProbe struct {
	context.Context
	key any
}

// Value implements context.Context.
func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}
