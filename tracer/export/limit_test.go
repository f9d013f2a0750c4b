package export

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

var epoch = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

// failed is a lookup of a pod, by its namespace, with a finding.
func failed(netns uint32, code string) *trace.Trace {
	e := &trace.Exchange{DNS: trace.DNS{ClientIP: netip.AddrFrom4([4]byte{10, 0, 0, byte(netns)})}}
	e.Path = trace.PathOf(trace.Sighting{Device: trace.Device{Node: "a", NetNS: netns, IfName: "eth0"}, Message: trace.MessageQuery, Direction: trace.DirectionTX})
	e.Milestones.Query.Left = trace.MilestoneAt(0)
	t := &trace.Trace{Exchange: e, Outcome: trace.OutcomeUnanswered, Client: &trace.Endpoint{Pod: fmt.Sprintf("pod%d", netns), Namespace: "demo"}}
	t.Record = trace.KindTrace
	if code != "" {
		t.Diagnosis = []trace.Finding{{Code: code}}
	}
	return t
}

// A pod that fails 1,300 times a second for three minutes: the log has the first of
// them and some of the others, says how many more there were, and has every failure of
// another pod and every other failure of this one.
func TestLimiterUnderAttack(t *testing.T) {
	l := NewLimiter()
	const seconds, rate = 180, 1300
	written, quiet, other := 0, 0, 0
	for s := range seconds {
		for i := range rate {
			now := epoch.Add(time.Duration(s)*time.Second + time.Duration(i)*time.Second/rate)
			if l.Allow(now, failed(1, "upstream-timeout")) {
				written++
			}
			if i == 0 && l.Allow(now, failed(2, "upstream-timeout")) {
				quiet++
			}
			if i == 1 && l.Allow(now, failed(1, "dropped-no-socket")) {
				other++
			}
		}
	}
	if want := limitBurst + limitRate*seconds; written < want-limitRate || written > want {
		t.Errorf("%d are written, want %d", written, want)
	}
	if quiet != seconds || other != seconds {
		t.Errorf("%d of another pod, %d with another finding, want %d of each", quiet, other, seconds)
	}
	left := seconds*rate - written
	want := fmt.Sprintf("%d more trace records of demo/pod1 with upstream-timeout were not written: it has so many of them", left)
	if lines := l.Report(); len(lines) != 1 || lines[0] != want {
		t.Errorf("%q, want %q", lines, want)
	}
	if lines := l.Report(); len(lines) != 0 {
		t.Errorf("said again: %q", lines)
	}
	if n := l.Stats()[trace.KindTrace]; n != uint64(left) {
		t.Errorf("%d are counted, want %d", n, left)
	}
	if !l.Allow(epoch.Add(time.Hour), failed(1, "upstream-timeout")) {
		t.Error("an hour later it is still held against it")
	}
}

// Healthy lookups are never left out, and a failure without a finding is limited as one
// with.
func TestLimiterTellsFailuresFromOthers(t *testing.T) {
	l := NewLimiter()
	well := failed(1, "")
	well.Outcome, well.RCode = trace.OutcomeAnswered, "NXDOMAIN"
	servfail := failed(1, "")
	servfail.Outcome, servfail.RCode = trace.OutcomeAnswered, "SERVFAIL"
	var n, bad int
	for range 3 * limitBurst {
		if l.Allow(epoch, well) {
			n++
		}
		if l.Allow(epoch, servfail) {
			bad++
		}
	}
	if n != 3*limitBurst || bad != limitBurst {
		t.Errorf("%d healthy and %d failed ones are written", n, bad)
	}
	if lines := l.Report(); len(lines) != 1 || !strings.Contains(lines[0], "with SERVFAIL") {
		t.Errorf("%q", lines)
	}
}

// Forged addresses are many clients, and still one place; the table stays bounded, and
// so do the lines.
func TestLimiterAgainstForgedAddresses(t *testing.T) {
	l := NewLimiter()
	written := 0
	for i := range 100_000 {
		f := failed(1, "upstream-timeout")
		f.Exchange.Milestones = trace.Milestones{}
		f.Exchange.ClientIP = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if l.Allow(epoch, f) {
			written++
		}
	}
	if written > placeFactor*limitBurst || len(l.buckets) > maxOfPlace+1 {
		t.Errorf("%d are written, %d buckets", written, len(l.buckets))
	}
	if !l.Allow(epoch, failed(2, "upstream-timeout")) {
		t.Error("nothing is written of a pod that has nothing to do with it")
	}
	if lines := l.Report(); len(lines) > maxReported+1 || !strings.Contains(lines[len(lines)-1], "further clients") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

// However many places and codes there are, the table is bounded, and has room again when
// they are quiet.
func TestLimiterIsBounded(t *testing.T) {
	l := NewLimiter()
	for i := range 2 * maxBuckets {
		l.Allow(epoch.Add(time.Duration(i)*time.Millisecond), failed(uint32(i), "upstream-timeout"))
	}
	if len(l.buckets) != maxBuckets || len(l.ofPlace) > maxBuckets {
		t.Errorf("%d buckets of %d places", len(l.buckets), len(l.ofPlace))
	}
	l.Allow(epoch.Add(time.Hour), failed(3*maxBuckets, "upstream-timeout"))
	if len(l.buckets) != 2 || len(l.ofPlace) != 1 {
		t.Errorf("an hour later: %d buckets of %d places", len(l.buckets), len(l.ofPlace))
	}
}
