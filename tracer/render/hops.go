package render

import (
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A plugin that only hands on shares a row with the next, unless it kept the
// query this share of the time, and at least this long.
const (
	ownTimeShare = 0.05
	ownTimeLeast = 100 * time.Microsecond
)

// maxHopDepth keeps labels readable however long the chain of plugins is.
const maxHopDepth = 6

// coredns tells what a CoreDNS did with a query. at is what the packets say of
// the same time.
func (s *story) coredns(depth int, q *trace.Query, upstreams []trace.Upstream, at stretch) {
	begin := s.since(&q.Header)
	end := begin
	if q.Duration != nil {
		end += q.Duration.Duration()
	}
	at.base = begin
	r := row{section: true, depth: depth, label: "COREDNS " + cacheWord(q), mark: markSpan, from: begin, to: end, open: q.Duration == nil}
	if at.known && at.from <= begin {
		r.from = at.from
	}
	if at.known && at.to > begin {
		// What a plugin still does when the response has left costs the client
		// nothing: the parts add up to what the client waited.
		end = min(end, at.to)
		r.to = at.to
	}
	if q.Outcome == trace.OutcomeError || q.Outcome == trace.OutcomeNoResponse {
		r.tone = bad
	}
	s.add(r)
	if r.from < begin {
		label := "queue (waits to be read)"
		if at.read {
			label = "from reading to its record"
		}
		s.add(row{depth: depth + 1, label: label, tone: work, mark: markWork, from: r.from, to: begin})
	}
	if len(q.Hops) == 0 {
		s.note(depth+1, faint, "no plugin is on record")
	}
	s.hops(depth+1, q, begin, end)
	if q.Error != "" {
		s.note(depth+1, bad, "error: %s", q.Error)
	}
	if len(upstreams) == 0 {
		for i := range q.Upstreams {
			upstreams = append(upstreams, trace.Upstream{Attempt: &q.Upstreams[i], Join: trace.JoinNone})
		}
	}
	s.upstreams(depth+1, upstreams, at)
}

// cacheWord says what the cache did for a query.
func cacheWord(q *trace.Query) string {
	switch q.Cache {
	case trace.CacheHit, trace.CacheMiss:
		return "cache " + q.Cache
	case trace.CacheStale:
		return "cache stale: an expired answer"
	}
	return ""
}

// hops tells the plugins, each beneath the one that called it.
func (s *story) hops(depth int, q *trace.Query, begin, end time.Duration) {
	children := make([][]int, len(q.Hops))
	var roots []int
	for i, h := range q.Hops {
		if h.Parent == nil || *h.Parent < 0 || *h.Parent >= i {
			roots = append(roots, i)
			continue
		}
		children[*h.Parent] = append(children[*h.Parent], i)
	}
	for _, i := range roots {
		s.hop(depth, q, i, children, begin, end)
	}
}

// hop tells one plugin, or several that did nothing but hand on to each other.
func (s *story) hop(depth int, q *trace.Query, first int, children [][]int, begin, end time.Duration) {
	last := first
	names := []string{hopName(q, &q.Hops[first])}
	for len(children[last]) == 1 {
		next := children[last][0]
		if !handsOn(q, &q.Hops[last], &q.Hops[next], end-begin) || !handsOnly(q, &q.Hops[next]) {
			break
		}
		last = next
		names = append(names, hopName(q, &q.Hops[last]))
	}
	h := &q.Hops[first]
	r := row{depth: depth, label: strings.Join(names, " › "), tone: work, mark: markSpan, from: begin + h.Start.Duration(), to: end, open: h.Duration == nil}
	if h.Duration != nil {
		r.to = r.from + h.Duration.Duration()
	}
	r.to = max(min(r.to, end), r.from)
	if len(children[last]) == 0 && !asks(q, &q.Hops[last]) {
		r.mark = markWork
	}
	s.add(r)
	for _, c := range children[last] {
		s.hop(min(depth+1, maxHopDepth), q, c, children, begin, end)
	}
}

// handsOn tells whether a hop spent next to nothing itself.
func handsOn(q *trace.Query, h, next *trace.Hop, total time.Duration) bool {
	if !handsOnly(q, h) {
		return false
	}
	if h.Duration == nil || next.Duration == nil {
		return true
	}
	own := (*h.Duration - *next.Duration).Duration()
	return own < ownTimeLeast || float64(own) < ownTimeShare*float64(total)
}

// handsOnly tells whether a plugin has no part in the answer: it is neither the
// cache, nor does it ask an upstream, nor did it answer.
func handsOnly(q *trace.Query, h *trace.Hop) bool {
	return h.Plugin != "cache" && h.Plugin != q.AnsweredBy && !asks(q, h)
}

func asks(q *trace.Query, h *trace.Hop) bool {
	return slices.ContainsFunc(q.Upstreams, func(a trace.Attempt) bool { return a.Plugin == h.Plugin })
}

func hopName(q *trace.Query, h *trace.Hop) string {
	name := h.Plugin
	switch {
	case h.Plugin == "cache" && q.Cache != "" && q.Cache != trace.CacheNone:
		return "cache: " + q.Cache
	case h.Plugin == q.AnsweredBy && !asks(q, h):
		return name + ": answers"
	}
	return name
}
