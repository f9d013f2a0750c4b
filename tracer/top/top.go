// Package top aggregates lookups: for each client its waiting time and timeouts, for each
// upstream its attempts. It is a function of the lookups and of the times that it is given,
// and its memory does not grow with their number.
package top

import (
	"cmp"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// DefaultMaxNames bounds the clients, and the upstreams, that are distinguished in
// one part of the window. Each costs some kilobytes.
const DefaultMaxNames = 1000

// Others is the name of the row for those beyond the bound.
const Others = "(others)"

// parts is how many parts a window has: the oldest part leaves as a whole, so
// that a sum covers the window and at most one part more.
const parts = 12

// Config of [Sums].
type Config struct {
	Window   time.Duration // how far back a view goes; 0: everything
	MaxNames int           // 0: DefaultMaxNames
}

// Sums counts lookups by client and by upstream. Not safe for concurrent use.
type Sums struct {
	config Config
	slots  map[int64]*slot // by part of the window
	newest int64
	latest time.Time // the latest lookup's
	late   uint64
	recent recent
}

// slot is one part of the window.
type slot struct {
	clients, upstreams map[string]*sum
	total              Total
	from               time.Time // the earliest lookup's
}

// New returns empty Sums.
func New(c Config) *Sums {
	if c.MaxNames == 0 {
		c.MaxNames = DefaultMaxNames
	}
	return &Sums{config: c, slots: map[int64]*slot{}}
}

// Add counts a lookup, by the time at which it began. One that began before the
// window is only counted as late. Of work in the background only the attempts
// are counted: no client asked for it. An upstream query whose lookup is not known is
// not counted. A lookup that replaces an earlier report without an answer is counted in its
// place, as long as that is remembered; else by itself.
func (s *Sums) Add(t *trace.Trace) {
	if t.Role == trace.RoleUpstream {
		return
	}
	p := s.slot(t.Time)
	if p == nil {
		s.late++
		return
	}
	if t.Time.After(s.latest) {
		s.latest = t.Time
	}
	if p.from.IsZero() || t.Time.Before(p.from) {
		p.from = t.Time
	}
	if t.Exchange == nil && t.Query == nil { // a refresh, which no client waited for
		s.attempts(p, t, &countedLookup{}, nil)
		return
	}
	var before *countedLookup
	if t.Replaces {
		if before = s.recent.take(keyOf(t)); before != nil {
			before.uncount()
		}
	}
	now := &countedLookup{slot: p, lookup: newLookup(t)}
	p.total.add(&now.lookup)
	s.count(now, before, row(p.clients, clientName(t), s.config.MaxNames), t.Time, now.lookup.counts(), now.lookup.duration)
	s.attempts(p, t, now, before)
	if now.lookup.timeout {
		s.recent.keep(keyOf(t), now)
	}
}

// count adds to a row and to now; to the peak and the latencies only if before, the earlier
// report of the lookup, did not.
func (s *Sums) count(now, before *countedLookup, r *sum, at time.Time, c counts, duration *trace.Seconds) {
	i := len(now.rows)
	now.rows = append(now.rows, counted{row: r, counts: c, measured: duration != nil})
	r.counts.add(&c)
	if before == nil || i >= len(before.rows) {
		r.peak.add(at)
	}
	if duration != nil && !before.measured(i) {
		r.latency.add(duration.Duration())
	}
}

// attempts counts the attempts of a lookup.
func (s *Sums) attempts(p *slot, t *trace.Trace, now, before *countedLookup) {
	s.upstreams(p, t.Time, t.QName, t.Upstreams, now, before)
	if q := t.Recorded(); len(t.Upstreams) == 0 && q != nil {
		for i := range q.Upstreams {
			s.attempt(p, t.Time, t.QName, &trace.Upstream{Attempt: &q.Upstreams[i]}, now, before)
		}
	}
}

// upstreams counts attempts, those further up a chain too.
func (s *Sums) upstreams(p *slot, at time.Time, qname string, list []trace.Upstream, now, before *countedLookup) {
	for i := range list {
		s.attempt(p, at, qname, &list[i], now, before)
		s.upstreams(p, at, qname, list[i].Upstreams, now, before)
	}
}

func (s *Sums) attempt(p *slot, at time.Time, qname string, u *trace.Upstream, now, before *countedLookup) {
	if name := upstreamName(u); name != "" {
		c, duration := attemptCounts(u)
		r := row(p.upstreams, name, s.config.MaxNames)
		s.count(now, before, r, at, c, duration)
		r.names.add(questionTo(qname, u), c.timeouts+c.failed > 0)
	}
}

// questionTo returns the name that an upstream was asked for by a lookup of qname.
func questionTo(qname string, u *trace.Upstream) string {
	switch {
	case u.Exchange != nil && u.Exchange.QName != "":
		return u.Exchange.QName
	case u.Attempt != nil && u.Attempt.QName != "":
		return u.Attempt.QName
	}
	return qname
}

// slot returns the part of the window that a time belongs to, nil if it is over.
func (s *Sums) slot(at time.Time) *slot {
	n := int64(0)
	if s.config.Window > 0 {
		n = at.UnixNano() / s.length()
	}
	if len(s.slots) > 0 && n <= s.newest-parts-1 {
		return nil
	}
	p := s.slots[n]
	if p == nil {
		p = &slot{clients: map[string]*sum{}, upstreams: map[string]*sum{}}
		s.slots[n] = p
		s.advance(n)
	}
	return p
}

func (s *Sums) length() int64 { return max(int64(s.config.Window)/parts, 1) }

// advance drops the parts that are over when part n has begun.
func (s *Sums) advance(n int64) {
	s.newest = max(s.newest, n)
	for old, p := range s.slots {
		if old <= s.newest-parts-1 {
			delete(s.slots, old)
			s.recent.forget(p)
		}
	}
}

// row returns the sum of a name, or the one that stands for the others.
func row(rows map[string]*sum, name string, limit int) *sum {
	r := rows[name]
	if r == nil && len(rows) >= limit {
		name = Others
		r = rows[name]
	}
	if r == nil {
		r = &sum{}
		rows[name] = r
	}
	return r
}

// Latest returns when the latest lookup began, the zero time without any.
func (s *Sums) Latest() time.Time { return s.latest }

// View sums up the window that ends at now.
func (s *Sums) View(now time.Time) View {
	v := View{To: now, Window: s.config.Window, Late: s.late}
	if s.config.Window > 0 {
		s.advance(now.UnixNano() / s.length())
	}
	clients, upstreams := map[string]*sum{}, map[string]*sum{}
	for _, p := range s.slots {
		if v.From.IsZero() || p.from.Before(v.From) {
			v.From = p.from
		}
		v.Total.merge(&p.total)
		mergeRows(clients, p.clients)
		mergeRows(upstreams, p.upstreams)
	}
	covered := v.covered()
	for name, r := range clients {
		v.Clients = append(v.Clients, r.client(name, covered))
	}
	for name, r := range upstreams {
		v.Upstreams = append(v.Upstreams, r.upstream(name, covered))
	}
	v.Sort(ByTimeouts, false)
	return v
}

func mergeRows(into, from map[string]*sum) {
	for name, r := range from {
		have := into[name]
		if have == nil {
			have = &sum{}
			into[name] = have
		}
		have.merge(r)
	}
}

// clientName is what a client is called: its pod, else its container or its
// address with the process.
func clientName(t *trace.Trace) string {
	name, process := "", ""
	switch {
	case t.Exchange != nil && t.Exchange.ClientIP.IsValid():
		name = t.Exchange.ClientIP.String()
	case t.Query != nil && t.Query.ClientIP.IsValid():
		name = t.Query.ClientIP.String()
	}
	if c := t.Client; c != nil {
		switch {
		case c.Pod != "" && c.Namespace != "":
			return c.Namespace + "/" + c.Pod
		case c.Pod != "":
			return c.Pod
		case c.Container != "":
			name = c.Container
		}
		process = c.Process
	}
	if process == "" {
		return cmp.Or(name, "unknown")
	}
	if name == "" {
		return process
	}
	return name + " " + process
}

// upstreamName is the address as configured, else as seen.
func upstreamName(u *trace.Upstream) string {
	if u.Attempt != nil {
		return u.Attempt.Address
	}
	if u.Exchange != nil && u.Exchange.ServerIP.IsValid() {
		return addressOf(u.Exchange)
	}
	return ""
}
