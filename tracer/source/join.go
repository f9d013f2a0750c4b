package source

import (
	"bytes"
	"container/heap"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// How long a record waits for what else there is about its lookup.
const (
	// Two nodes, a tracer and a CoreDNS write of one lookup within this time of
	// its begin: an upstream query 6 s later may be unanswered for 7 s, its trace comes
	// 2 s later, and agents ship in batches.
	holdRecords = 20 * time.Second
	// Where CoreDNS alone writes, its records come with its batches.
	holdQueries = 2 * time.Second
)

// key names a record: a flow in one place at one time.
type key struct {
	kind string
	flow trace.Flow
	time int64
}

func keyOf(r trace.Record) key {
	h := r.Head()
	return key{kind: r.Kind(), flow: h.Flow, time: h.Time.UnixNano()}
}

// joiner makes lookups of records that come roughly in order of time. A trace passes
// unchanged if nothing else is known of its lookup. Otherwise, with another node's trace or
// a record that it lacks, it is split into its records, and assembled again with all of
// them.
type joiner struct {
	joining   Joining
	assembler Assembler
	emit      func(t *trace.Trace, line []byte) error
	// immediate passes traces on as they come, for an interactive reader; they are then not
	// joined with what other nodes saw.
	immediate bool

	now      int64 // when the latest record began, or later if nothing came since
	hold     time.Duration
	due      int64 // what began before it waits no longer
	advanced int64 // the assembler's time
	waiting  entryHeap
	memory   int // of the lines of those waiting; the oldest leave when it is too much
	flows    map[trace.Flow]*flow
	traces   map[traceKey]*entry // of those waiting
	swept    int64
	feed     feedHeap
	seq      uint64
	line     []byte
}

// traceKey names a trace: one that replaces another has its name.
type traceKey struct {
	id   trace.TraceID
	time int64
}

func traceKeyOf(t *trace.Trace) traceKey { return traceKey{t.TraceID, t.Time.UnixNano()} }

// flow is what is known of one query between one client and one server.
type flow struct {
	parts []part
	last  int64
}

type part struct {
	key    key
	used   bool
	passed bool // in a trace
	detail int  // detailOf the record that was used
}

// entry is a record that waits.
type entry struct {
	at    int64 // when the first part of it began
	seq   uint64
	trace *trace.Trace // nil: a loose record
	parts []trace.Record
	line  []byte // of a trace
	size  int
	// replaced tells that another trace of the same name has all of it.
	replaced bool
}

func newJoiner(j Joining, emit func(*trace.Trace, []byte) error) *joiner {
	return &joiner{joining: j, assembler: j.Assemble(), emit: emit, hold: holdQueries, flows: map[trace.Flow]*flow{}, traces: map[traceKey]*entry{}}
}

// add takes a record and its line, which is copied.
func (j *joiner) add(rec trace.Record, line []byte) error {
	if rec.Kind() != trace.KindQuery {
		j.hold = holdRecords
	}
	j.seq++
	e := &entry{seq: j.seq, size: len(line), parts: partsOf(nil, rec)}
	e.at = beginOf(rec, e.parts)
	if t, ok := rec.(*trace.Trace); ok {
		e.trace, e.line = t, line
		if j.immediate {
			return j.pass(e)
		}
		e.line = bytes.Clone(line)
		j.replace(e)
	}
	for _, p := range e.parts {
		j.note(keyOf(p))
	}
	heap.Push(&j.waiting, e)
	j.memory += e.size
	j.now = max(j.now, e.at)
	return j.release()
}

// replace finds which of two traces of one name has all of the lookup.
func (j *joiner) replace(e *entry) {
	key := traceKeyOf(e.trace)
	switch other := j.traces[key]; {
	case other == nil || e.trace.Replaces && !other.trace.Replaces:
		j.traces[key] = e
		if other != nil {
			other.replaced = true
		}
	case other.trace.Replaces && !e.trace.Replaces:
		e.replaced = true
	}
}

// idle lets time pass in which nothing came.
func (j *joiner) idle(d time.Duration) error {
	j.now += int64(d)
	return j.release()
}

// flush passes on everything that waits.
func (j *joiner) flush() error {
	for len(j.waiting) > 0 {
		if err := j.leave(); err != nil {
			return err
		}
	}
	for len(j.feed) > 0 {
		if err := j.give(); err != nil {
			return err
		}
	}
	return j.emitAll(j.assembler.Flush())
}

// release passes on what waited long enough, in order of its begin; what is to
// be assembled then goes on in order of its end, as a tracer would have got it.
func (j *joiner) release() error {
	due := max(j.now-int64(j.hold), j.due)
	for len(j.waiting) > 0 && (j.waiting[0].at <= due || j.memory > j.joining.bound()) {
		due = max(due, j.waiting[0].at)
		if err := j.leave(); err != nil {
			return err
		}
	}
	for len(j.feed) > 0 && j.feed[0].end <= due {
		if err := j.give(); err != nil {
			return err
		}
	}
	if err := j.advance(due); err != nil {
		return err
	}
	j.due = due
	j.sweep()
	return nil
}

// leave ends the wait of the oldest entry.
func (j *joiner) leave() error {
	e := heap.Pop(&j.waiting).(*entry)
	j.memory -= e.size
	if e.trace != nil && j.traces[traceKeyOf(e.trace)] == e {
		delete(j.traces, traceKeyOf(e.trace))
	}
	if e.replaced {
		return nil
	}
	if e.trace != nil && (isRefresh(e.trace) || j.alone(e)) {
		return j.pass(e)
	}
	for _, r := range e.parts {
		again := j.note(keyOf(r)).used
		if j.feeds(r) {
			if ex, ok := r.(*trace.Exchange); ok {
				ex.Replaces = again // what was assembled before, here
			}
			j.seq++
			heap.Push(&j.feed, &fed{record: r, end: ended(r).UnixNano(), seq: j.seq})
		}
	}
	return nil
}

// pass gives a trace unchanged, unless all of it was given before.
func (j *joiner) pass(e *entry) error {
	fresh := len(e.parts) == 0
	for _, r := range e.parts {
		p := j.note(keyOf(r))
		fresh = fresh || !p.used || detailOf(r) > p.detail
		p.used, p.passed, p.detail = true, true, max(p.detail, detailOf(r))
	}
	if !fresh {
		return nil
	}
	// It was diagnosed where it was made, but findings of several lookups need it.
	j.joining.Diagnose(e.trace)
	return j.emit(e.trace, e.line)
}

// alone tells whether a trace holds all that is known of its flows.
func (j *joiner) alone(e *entry) bool {
	own := make(map[key]bool, len(e.parts))
	for _, r := range e.parts {
		own[keyOf(r)] = true
	}
	for _, r := range e.parts {
		f := j.flows[r.Head().Flow]
		if f == nil {
			continue
		}
		for _, p := range f.parts {
			// A refresh has the flow of the query that set it off, and is a
			// trace of its own.
			if !own[p.key] && p.key.kind != trace.KindRefresh && maybeSameLookup(p.key.time, e.at) {
				return false
			}
		}
	}
	return true
}

// isRefresh tells traces of work in the background, which no client waited for.
// They do not hold the record that they were made of, so they are not assembled again.
func isRefresh(t *trace.Trace) bool { return t.Exchange == nil && t.Query == nil }

// maybeSameLookup tells by their times whether two records of one flow may be of one lookup:
// a flow recurs only when a client reuses its port and ID.
func maybeSameLookup(a, b int64) bool { return max(a-b, b-a) <= int64(holdRecords) }

// note makes a part known.
func (j *joiner) note(k key) *part {
	f := j.flows[k.flow]
	if f == nil {
		f = &flow{}
		j.flows[k.flow] = f
	}
	f.last = max(f.last, k.time)
	for i := range f.parts {
		if f.parts[i].key == k {
			return &f.parts[i]
		}
	}
	f.parts = append(f.parts, part{key: k})
	return &f.parts[len(f.parts)-1]
}

// feeds tells whether a record is to be assembled: it comes for the first time, or
// says more than before, as an exchange that a tracer wrote again.
func (j *joiner) feeds(r trace.Record) bool {
	p := j.note(keyOf(r))
	more := !p.used || !p.passed && detailOf(r) > p.detail
	p.used, p.detail = true, max(p.detail, detailOf(r))
	return more
}

// detailOf returns a measure of how much the record of an exchange has: its sightings, and
// whether its end was seen. Other records are written once.
func detailOf(r trace.Record) int {
	ex, ok := r.(*trace.Exchange)
	if !ok {
		return 0
	}
	seen := 2 * (ex.Path.Len() + ex.PathOmitted + len(ex.Drops) + len(ex.Rejected))
	if ex.Duration != nil || len(ex.Drops) > 0 {
		seen++
	}
	return seen
}

// sweep forgets flows that are over.
func (j *joiner) sweep() {
	if j.now-j.swept < int64(holdRecords) {
		return
	}
	j.swept = j.now
	for name, f := range j.flows {
		if j.now-f.last > 2*int64(holdRecords) {
			delete(j.flows, name)
		}
	}
}

// give assembles the next record.
func (j *joiner) give() error {
	f := heap.Pop(&j.feed).(*fed)
	j.assembler.Add(f.record)
	return j.advance(f.end)
}

// advance tells the assembler the time, which never goes back: a record may have
// come after its time.
func (j *joiner) advance(to int64) error {
	if to <= j.advanced {
		return nil
	}
	j.advanced = to
	return j.emitAll(j.assembler.Advance(time.Unix(0, to)))
}

func (j *joiner) emitAll(traces []*trace.Trace) error {
	for _, t := range traces {
		t.Diagnosis = j.joining.Diagnose(t)
		j.line = t.AppendJSON(j.line[:0])
		if err := j.emit(t, j.line); err != nil {
			return err
		}
	}
	return nil
}

// partsOf lists what a record is made of: itself, or the records in a trace. Of a
// refresh it is one that has the name only, so that CoreDNS's own is known for it.
func partsOf(list []trace.Record, rec trace.Record) []trace.Record {
	t, ok := rec.(*trace.Trace)
	if !ok {
		return append(list, rec)
	}
	if isRefresh(t) {
		list = append(list, &trace.Refresh{Header: t.Header})
	}
	list = appendParts(list, t.Exchange, t.Query)
	return upstreamParts(list, t.Upstreams)
}

func upstreamParts(list []trace.Record, upstreams []trace.Upstream) []trace.Record {
	for i := range upstreams {
		for _, ex := range upstreams[i].Earlier {
			list = appendParts(list, ex, nil)
		}
		list = appendParts(list, upstreams[i].Exchange, upstreams[i].Query)
		list = upstreamParts(list, upstreams[i].Upstreams)
	}
	return list
}

func appendParts(list []trace.Record, e *trace.Exchange, q *trace.Query) []trace.Record {
	if e != nil {
		list = append(list, e)
	}
	if q != nil {
		list = append(list, q)
	}
	return list
}

func beginOf(rec trace.Record, parts []trace.Record) int64 {
	at := rec.Head().Time.UnixNano()
	for _, p := range parts {
		at = min(at, p.Head().Time.UnixNano())
	}
	return at
}

// ended returns when a record was complete.
func ended(rec trace.Record) time.Time {
	at := rec.Head().Time
	var d *trace.Seconds
	switch r := rec.(type) {
	case *trace.Exchange:
		d = r.Duration
	case *trace.Query:
		d = r.Duration
	case *trace.Refresh:
		d = r.Duration
	}
	if d != nil {
		at = at.Add(d.Duration())
	}
	return at
}
