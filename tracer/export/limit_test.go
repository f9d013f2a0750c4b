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
	if written > placeFactor*limitBurst || l.held() > maxOfHolder {
		t.Errorf("%d are written, %d buckets", written, l.held())
	}
	if !l.Allow(epoch, failed(2, "upstream-timeout")) {
		t.Error("nothing is written of a pod that has nothing to do with it")
	}
	if lines := l.Report(); len(lines) > maxReported+1 || !strings.Contains(lines[len(lines)-1], "further clients") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

// of makes a lookup one of a cgroup's.
func of(t *trace.Trace, cgroup string) *trace.Trace {
	t.Client.Cgroup = cgroup
	t.Exchange.Client = t.Client
	return t
}

// Somebody makes network namespaces by the dozen, and fails in each of them in many ways:
// all failures of a pod that has nothing to do with it are written. Where the namespaces are
// known to be one pod's, so is no more of it than of one client that has several addresses.
func TestLimiterAgainstManyNamespaces(t *testing.T) {
	for name, cgroup := range map[string]string{
		"of one pod":    "/kubelet.slice/kubelet-kubepods.slice/pod1.slice/c1",
		"of nobody":     "",
		"of the system": "/",
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLimiter()
			written, quiet := map[string]int{}, 0
			const namespaces, codes, rounds, each = 50, 45, 30, 6
			var noisy []*trace.Trace
			for i := range namespaces * codes {
				noisy = append(noisy, of(failed(uint32(1000+i/codes), fmt.Sprintf("code%d", i%codes)), cgroup))
			}
			victim := of(failed(2, "upstream-timeout"), "/kubelet.slice/kubelet-kubepods.slice/pod2.slice/c1")
			for round := range rounds {
				now := epoch.Add(time.Duration(round) * 100 * time.Millisecond)
				for i := range each * len(noisy) {
					if r := noisy[i/each]; l.Allow(now, r) {
						written[r.Diagnosis[0].Code]++
					}
				}
				if l.Allow(now, victim) {
					quiet++
				}
			}
			if quiet != rounds {
				t.Errorf("%d of %d of a quiet pod are written", quiet, rounds)
			}
			if len(cgroup) > 1 {
				for code, n := range written {
					if n > placeFactor*(limitBurst+limitRate*rounds/10) {
						t.Errorf("%d with %s are written", n, code)
					}
				}
			}
			if n := l.held(); n > maxBuckets {
				t.Errorf("%d buckets", n)
			}
			said, left := uint64(0), uint64(0)
			for _, n := range l.Stats() {
				left += n
			}
			for _, line := range l.Report() {
				var n uint64
				if _, err := fmt.Sscan(line, &n); err != nil {
					t.Fatal(err)
				}
				said += n
			}
			if said != left || left == 0 {
				t.Errorf("the log says that %d were not written, of %d", said, left)
			}
		})
	}
}

// However many places and codes there are, the table is bounded, and has room again when
// they are quiet.
func TestLimiterIsBounded(t *testing.T) {
	l := NewLimiter()
	for i := range 2 * maxBuckets {
		l.Allow(epoch.Add(time.Duration(i)*time.Millisecond), failed(uint32(i), "upstream-timeout"))
	}
	if l.held() != maxBuckets || l.count != maxBuckets {
		t.Errorf("%d buckets of %d clients, %d are counted", l.held(), len(l.holders), l.count)
	}
	l.Allow(epoch.Add(time.Hour), failed(3*maxBuckets, "upstream-timeout"))
	if l.held() != 2 || l.count != 2 || len(l.holders) != 1 {
		t.Errorf("an hour later: %d buckets of %d clients, %d are counted", l.held(), len(l.holders), l.count)
	}
}

// held counts the buckets.
func (l *Limiter) held() int {
	n := 0
	for _, h := range l.holders {
		n += len(h.buckets)
	}
	return n
}

// What the limiter takes for a record of a flood from ever new places, with a full table.
func BenchmarkLimiterFull(b *testing.B) {
	l := NewLimiter()
	records := make([]*trace.Trace, 2*maxBuckets)
	for i := range records {
		records[i] = failed(uint32(i), "upstream-timeout")
	}
	i := 0
	for b.Loop() {
		l.Allow(epoch, records[i%len(records)])
		i++
	}
}
