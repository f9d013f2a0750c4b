package dnstrace

import (
	"context"
	"sync"

	ot "github.com/opentracing/opentracing-go"
)

// front is what the plugins after this one get to see of a recording: the
// writer, and the first spans with their contexts. They may keep it as long as they
// like, so it is made anew for each query, where the recording behind it is
// used again. Only the ordinary plugins are known to keep nothing: where no other
// one saw it, because the cache had the answer, it is used again, too.
type front struct {
	writer responseWriter
	first  hopSpan
	second hopSpan // for the second hop, if there is one
	// shared tells that others than the ordinary plugins saw it, or may work in the
	// background: they may be in other goroutines, now and after the query. Where
	// it is false, only the query's goroutine knows of the front and the recording,
	// and needs no lock for them. It is set by that goroutine, before they see it.
	shared bool
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
	f := rec.spare
	if f == nil {
		f = new(front)
	} else if f.second.rec != nil {
		f.second = hopSpan{}
	}
	f.writer.front, f.writer.rec, f.writer.plugin, f.writer.use = f, rec, d, rec.use
	f.first.span = span{front: f, rec: rec, use: rec.use, end: open}
	rec.plugin, rec.front, rec.spans = d, f, rec.list[:0]
	return rec, f
}

// recycle gives a closed recording back for another query. From here on, what
// was made for this one finds that out and leaves it alone. Where a cache may
// work in the background, for which the query is still needed, it is not given
// back.
func (rec *recording) recycle() {
	if !rec.front.shared {
		rec.clear(rec.front)
		recordings.Put(rec)
		return
	}
	rec.mu.Lock()
	if rec.plugin.chain.refreshes || rec.kept || len(rec.background) > 0 {
		rec.mu.Unlock()
		return
	}
	rec.clear(nil)
	rec.mu.Unlock()
	recordings.Put(rec)
}

// clear makes a recording ready for another query, with the front if nobody else
// has it.
func (rec *recording) clear(spare *front) {
	rec.spare = spare
	rec.observation = observation{}
	rec.use++
}

// start starts the first span, at the time of the query, which comes with ctx.
// other is the span of another tracer, or nil.
func (f *front) start(ctx context.Context, other ot.Span) {
	s, c, h := &f.first.span, &f.first.ctx, f.writer.plugin.first
	c.Context, c.span, c.exposed, c.other = ctx, s, h.exposed, nil
	s.name = h.name
	s.refresh = s.rec.plugin.chain.refreshes
	f.shared = h.exposed || other != nil || s.refresh
	if s.refresh && s.name == cachePlugin {
		s.md = metadataOf(ctx)
	}
	if other != nil {
		// What plugin.NextOrFailure does for the plugins after this one.
		s.other = other.Tracer().StartSpan(s.name, ot.ChildOf(other.Context()))
		c.other = s.other
	}
	s.rec.spans = append(s.rec.spans, s)
}

// finish closes the recording of a query whose plugins returned. Afterwards f may be
// another query's.
func (f *front) finish(rcode int, err error) {
	f.first.rec.end(rcode, err)
}

// unwind closes the recording of a query in which a plugin panicked, with what it
// panicked with, or nil where its goroutine ends. CoreDNS recovers from panics, and
// the record helps to find them. It is called by what is deferred, so the stack is
// still whole when the panic is raised again.
func (f *front) unwind(cause any) {
	f.first.rec.endPanic(cause)
	if cause != nil {
		panic(cause)
	}
}
