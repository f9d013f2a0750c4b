package export

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/origin"
)

// Limits of the records of a client's lookups that have the same finding, or fail in the same
// way: the first thousand, enough to learn all about them, and then ten a second. At some 9
// kB each that is 90 kB a second, where a pod that sends 1,300 bad queries a second would
// make 12 MB.
const (
	limitBurst = 1000
	limitRate  = 10 // a second
)

// placeFactor is how much more all clients of a holder ([origin.Client.Holder]) may have
// written together. On a device by which the clients of other nodes come there may be many,
// and they may be one that forges addresses; the network namespaces of one pod may be, too.
const placeFactor = 8

// maxBuckets bounds what is remembered, some 200 bytes each, and maxOfHolder what is of
// one holder: a pod has a few codes, and addresses can be forged. sweepEvery bounds how
// often a full table is searched for what is not needed any more.
const (
	maxBuckets  = 4096
	maxOfHolder = 128
	sweepEvery  = time.Minute
)

// maxReported bounds the lines of one [Limiter.Report].
const maxReported = 10

// Limiter drops records of lookups that fail repeatedly in the same way, by client and code,
// so that one client does not fill the log. Safe for concurrent use. It has no clock.
type Limiter struct {
	mu      sync.Mutex
	holders map[origin.Client]*holder
	bySize  [maxOfHolder + 1]map[*holder]struct{} // those of so many buckets
	count   int                                   // of all buckets
	swept   time.Time
	rest    bucket // of clients for whom there is no room
	total   map[string]uint64
}

// holder is what is remembered of a holder.
type holder struct {
	of      origin.Client
	buckets map[bucketKey]*bucket
}

// bucketKey is what is limited together. Of what is for all clients of a holder the client
// has no name, and all is set.
type bucketKey struct {
	kind, code string
	client     origin.Client
	all        bool
}

// bucket holds what may still be written (a token bucket), and what was not.
type bucket struct {
	tokens float64
	filled time.Time
	label  string
	more   uint64 // left out and not reported yet
}

// NewLimiter returns a Limiter that left out nothing yet.
func NewLimiter() *Limiter {
	l := &Limiter{holders: map[origin.Client]*holder{}, rest: bucket{label: "further clients"}, total: map[string]uint64{trace.KindExchange: 0, trace.KindTrace: 0}}
	for n := range l.bySize {
		l.bySize[n] = map[*holder]struct{}{}
	}
	return l
}

// Allow tells whether a record is to be written at now. An ordinary one always is.
func (l *Limiter) Allow(now time.Time, r trace.Record) bool {
	code := codeOf(r)
	if code == "" {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	client := origin.Of(r)
	h := l.holder(client.Holder())
	all := l.bucket(now, h, bucketKey{kind: r.Kind(), code: code, client: h.of, all: true}, "further clients of one place")
	if all == nil {
		all = &l.rest
	}
	own := l.bucket(now, h, bucketKey{kind: r.Kind(), code: code, client: client}, origin.Label(r))
	if own == nil {
		own = all
	}
	all.fill(now, placeFactor)
	if own != all {
		own.fill(now, 1)
	}
	if own.tokens >= 1 && all.tokens >= 1 {
		own.tokens--
		if own != all {
			all.tokens--
		}
		return true
	}
	own.more++
	l.total[r.Kind()]++
	return false
}

// holder returns what is remembered of a holder, which may be nothing yet.
func (l *Limiter) holder(of origin.Client) *holder {
	if h := l.holders[of]; h != nil {
		return h
	}
	return &holder{of: of, buckets: map[bucketKey]*bucket{}}
}

// bucket returns what is limited together; nil if there is no room for it.
func (l *Limiter) bucket(now time.Time, h *holder, k bucketKey, label string) *bucket {
	b := h.buckets[k]
	if b != nil || len(h.buckets) >= maxOfHolder {
		return b
	}
	if l.count >= maxBuckets {
		l.sweep(now)
	}
	if l.count >= maxBuckets && !l.displace(len(h.buckets)) {
		return nil
	}
	b = &bucket{label: label}
	l.set(h, k, b)
	return b
}

// displace makes room in a full table for a holder that has some buckets: it removes one of
// the holder that has most, if that still has as many afterwards as the other then has. So
// no holder loses buckets to one that has more, and none gets a removed bucket back, full
// again, from one that has less.
func (l *Limiter) displace(has int) bool {
	for n := maxOfHolder; n >= has+2; n-- {
		for h := range l.bySize[n] {
			for k, b := range h.buckets {
				l.rest.more += b.more
				l.set(h, k, nil)
				return true
			}
		}
	}
	return false
}

// set gives a holder a bucket, or takes it away.
func (l *Limiter) set(h *holder, k bucketKey, b *bucket) {
	delete(l.bySize[len(h.buckets)], h)
	l.count -= len(h.buckets)
	if b != nil {
		h.buckets[k] = b
	} else {
		delete(h.buckets, k)
	}
	l.count += len(h.buckets)
	if len(h.buckets) == 0 {
		delete(l.holders, h.of)
		return
	}
	l.holders[h.of] = h
	l.bySize[len(h.buckets)][h] = struct{}{}
}

func (b *bucket) fill(now time.Time, factor float64) {
	if b.filled.IsZero() {
		b.tokens = limitBurst * factor
	} else {
		// A clock that was stepped back takes nothing away.
		b.tokens = min(b.tokens+max(0, now.Sub(b.filled).Seconds())*limitRate*factor, limitBurst*factor)
	}
	b.filled = now
}

// sweep forgets those that are full again, and have nothing to report.
func (l *Limiter) sweep(now time.Time) {
	// A clock that was stepped back must not stop it.
	if now.Sub(l.swept).Abs() < sweepEvery {
		return
	}
	l.swept = now
	const full = limitBurst / limitRate * time.Second
	for _, h := range l.holders {
		for k, b := range h.buckets {
			if b.more == 0 && now.Sub(b.filled).Abs() >= full {
				l.set(h, k, nil)
			}
		}
	}
}

// Report returns lines that say what was left out since the last call, most first.
func (l *Limiter) Report() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	type left struct {
		bucketKey
		*bucket
	}
	var all []left
	for _, h := range l.holders {
		for k, b := range h.buckets {
			if b.more > 0 {
				all = append(all, left{k, b})
			}
		}
	}
	if l.rest.more > 0 {
		all = append(all, left{bucketKey{kind: "record", code: "several codes"}, &l.rest})
	}
	slices.SortFunc(all, func(a, b left) int {
		return cmp.Or(cmp.Compare(b.more, a.more), cmp.Compare(a.label, b.label), cmp.Compare(a.code, b.code))
	})
	var lines []string
	var unnamed, clients uint64
	for i, b := range all {
		if i < maxReported {
			lines = append(lines, fmt.Sprintf("%d more %s records of %s with %s were not written: it has so many of them", b.more, b.kind, b.label, b.code))
		} else {
			unnamed += b.more
			clients++
		}
		b.more = 0
	}
	if clients > 0 {
		lines = append(lines, fmt.Sprintf("%d more records were not written, of %d further clients and codes that have so many of them", unnamed, clients))
	}
	return lines
}

// Stats returns how many records were left out, by kind.
func (l *Limiter) Stats() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.total)
}

// codeOf returns the code by which a record is limited: the first finding, else how it
// failed; empty for an ordinary one.
func codeOf(r trace.Record) string {
	switch r := r.(type) {
	case *trace.Trace:
		if len(r.Diagnosis) > 0 {
			return r.Diagnosis[0].Code
		}
		return failure(r.Outcome, r.RCode)
	case *trace.Exchange:
		return failure(r.Outcome, r.RCode)
	}
	return ""
}

func failure(outcome, rcode string) string {
	switch {
	case outcome != trace.OutcomeAnswered:
		return outcome
	case rcode == "NOERROR", rcode == "NXDOMAIN":
		return ""
	}
	return rcode
}
