package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Healthy mixed traffic has no finding: misses and hits, names that do not exist,
// TCP, IPv6, a pod with host networking, answers that are prefetched, a slow but
// not too slow upstream. DNSTRACE_HEALTHY=10m is what the project promises; where
// cases are recorded it is as long, with fewer lookups.
func TestDiagnoseHealthy(t *testing.T) {
	length, rate := wanted(t, "DNSTRACE_HEALTHY", 15*time.Second), 40.0
	if os.Getenv(recordEnv) != "" {
		length, rate = 10*time.Minute, 0.7
	}
	r := newFaultRig(t, func(l *lab.Lab) string {
		return fmt.Sprintf(". {\n errors\n %s\n cache {\n  success 1000 20\n  prefetch 2 1m\n }\n forward . %s %s\n}\n", recording(l), l.Upstream(0).V4(), l.Upstream(1).V4())
	}, "--filter", `qname endsWith ".calm.test."`) // the tracer sees the whole machine, and others' labs in it
	for i := range 2 {
		r.Upstream(i).Set("none.calm.test.", lab.Behaviour{Rcode: dns.RcodeNameError})
		r.Upstream(i).Set("far.calm.test.", lab.Behaviour{Delay: 120 * time.Millisecond})
	}
	rng := rand.New(rand.NewPCG(7, 11))
	starved := watchForStarvation(t)
	lookups := 0
	for end := time.Now().Add(length); time.Now().Before(end); lookups++ {
		client := []string{"client-a", "client-a", "client-b", lab.Node}[rng.IntN(4)]
		if res, _ := r.Client(client).Exchange(t.Context(), healthyQuery(rng, lookups)); res.Err != nil {
			time.Sleep(8 * time.Second)
			why, err := r.Dnstrace(t.Context(), "explain", "--api", r.APISocket(), res.Name)
			t.Fatalf("%s: %v\n%s%v", res.Name, res.Err, why, err)
		}
		time.Sleep(time.Duration(float64(time.Second) / rate * rng.ExpFloat64()))
	}
	// What may be an upstream query waits longest; then all are there.
	time.Sleep(8 * time.Second)
	waits := starved()
	traces, spared := 0, 0
	eachTrace(t, r.RecordFile(), func(tr *trace.Trace) {
		traces++
		// A machine that is short of CPU lets queries wait, and the tracer lose packets: it
		// is right to say so, where it was.
		found := slices.DeleteFunc(slices.Clone(tr.Diagnosis), func(f trace.Finding) bool {
			return f.InDoubt && lostPackets(tr) || f.Code == "server-overloaded" && waits.during(tr)
		})
		spared += len(tr.Diagnosis) - len(found)
		if len(found) != 0 {
			t.Errorf("%s %s: %v", tr.QName, tr.QType, tr.Diagnosis)
		}
	})
	t.Logf("%d traces, %d findings of a machine that was short of CPU, which let this test wait %d times", traces, spared, len(waits))
	if traces < lookups {
		t.Errorf("%d traces of %d lookups", traces, lookups)
	}
	r.keep("healthy-ten-minutes", "calm.test")
}

// healthyQuery is the i-th lookup of an application.
func healthyQuery(rng *rand.Rand, i int) lab.Query {
	var q lab.Query
	switch rng.IntN(10) {
	case 0, 1:
		q.Name = fmt.Sprintf("n%d.fresh.calm.test.", i)
	case 2:
		q.Name = fmt.Sprintf("n%d.far.calm.test.", rng.IntN(50))
	case 3:
		q.Name = fmt.Sprintf("n%d.none.calm.test.", rng.IntN(20))
	default:
		q.Name = fmt.Sprintf("n%d.popular.calm.test.", rng.IntN(8))
	}
	if rng.IntN(3) == 0 {
		q.Type = dns.TypeAAAA
	}
	if rng.IntN(6) == 0 {
		q.Network = "tcp"
	}
	if rng.IntN(4) == 0 {
		q.Server = lab.ServiceV6
	}
	return q
}

// lostPackets tells whether the tracer lost packets during a lookup.
func lostPackets(tr *trace.Trace) bool {
	lost := tr.Exchange != nil && tr.Exchange.LostEvents > 0
	for _, u := range tr.Upstreams {
		lost = lost || u.Exchange != nil && u.Exchange.LostEvents > 0
	}
	return lost
}

// starvation lists when this process was left waiting for a CPU, as others then
// are too.
type starvation []stall

type stall struct{ from, to time.Time }

// during tells whether there was such a time while a lookup was under way.
func (s starvation) during(tr *trace.Trace) bool {
	end := tr.Time
	if tr.Duration != nil {
		end = end.Add(tr.Duration.Duration())
	}
	return slices.ContainsFunc(s, func(x stall) bool { return x.from.Before(end) && x.to.After(tr.Time) })
}

// watchForStarvation sleeps for short times, and notes where it was woken so late
// that a server would have kept a query waiting. The result ends it.
func watchForStarvation(t *testing.T) func() starvation {
	t.Helper()
	const nap, late = 20 * time.Millisecond, 100 * time.Millisecond
	stop, done := make(chan struct{}), make(chan starvation, 1)
	go func() {
		var all starvation
		for from := time.Now(); ; {
			select {
			case <-stop:
				done <- all
				return
			case <-time.After(nap):
			}
			now := time.Now()
			if now.Sub(from) > nap+late {
				all = append(all, stall{from, now})
			}
			from = now
		}
	}()
	return func() starvation {
		close(stop)
		return <-done
	}
}
