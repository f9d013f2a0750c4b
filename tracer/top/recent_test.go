package top

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

func again(t *trace.Trace) { t.Replaces = true }

// A lookup that goes on after it was reported is one lookup, and so are its attempts: as
// they are in the end.
func TestReplacedLookupIsCountedOnce(t *testing.T) {
	const upstream = "192.0.2.1:53"
	s := New(Config{Window: time.Minute})
	s.Add(lookupOf(0, unanswered, asked(attempt(upstream, trace.OutcomeTimeout, time.Second))))
	s.Add(lookupOf(time.Millisecond))
	s.Add(lookupOf(0, took(8*time.Second), again,
		asked(attempt(upstream, trace.OutcomeTimeout, time.Second), attempt(upstream, trace.OutcomeOK, time.Millisecond))))
	v := s.View(start.Add(10 * time.Second))
	if v.Total.Lookups != 2 || v.Total.Timeouts != 0 {
		t.Errorf("%+v", v.Total)
	}
	c, u := v.Clients[0], v.Upstreams[0]
	if c.Lookups != 2 || c.Timeouts != 0 || c.Resent != 0 || c.Peak != 2 || c.Latency.Max != trace.Seconds(8*time.Second) {
		t.Errorf("%+v, latency %+v", c, c.Latency)
	}
	if u.Attempts != 2 || u.Timeouts != 1 || u.Latency.Max != trace.Seconds(time.Millisecond) {
		t.Errorf("%+v", u)
	}
}

// What replaces a lookup that was never counted here is one, and what is remembered
// is bounded, also by the window.
func TestReplacedLookupsAreBounded(t *testing.T) {
	s := New(Config{Window: time.Minute})
	s.Add(lookupOf(0, again))
	for i := range 2 * maxRecent {
		s.Add(lookupOf(time.Duration(i)*time.Microsecond, unanswered))
	}
	if v := s.View(start.Add(time.Second)); v.Total.Lookups != 2*maxRecent+1 || len(s.recent.of) > maxRecent || len(s.recent.order) > maxRecent {
		t.Errorf("%+v, %d remembered", v.Total, len(s.recent.of))
	}
	s.Add(lookupOf(time.Hour))
	if len(s.recent.of) != 0 {
		t.Errorf("%d of an hour ago are remembered", len(s.recent.of))
	}
}

// An upstream query whose lookup is not known is nobody's.
func TestUpstreamQueryWithoutItsLookupIsNotCounted(t *testing.T) {
	s := New(Config{})
	s.Add(lookupOf(0, func(t *trace.Trace) { t.Role = trace.RoleUpstream }))
	if v := s.View(start); v.Total.Lookups != 0 || len(v.Clients)+len(v.Upstreams) != 0 {
		t.Errorf("%+v", v)
	}
}
