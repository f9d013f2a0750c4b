package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Healthy mixed traffic has no finding on any topology, and one trace a lookup: misses and
// hits, names that do not exist, a slow upstream, TCP, IPv6, sockets that are not connected,
// A and AAAA at once from one socket. DNSTRACE_HEALTHY=10m is what the project promises.
func TestHealthyOnEachTopology(t *testing.T) {
	length := wanted(t, "DNSTRACE_HEALTHY", 3*time.Second)
	for _, top := range lab.Topologies() {
		t.Run(top.Name, func(t *testing.T) {
			t.Parallel()
			r := newTopologyRig(t, top)
			for _, zone := range topologyZones {
				r.Upstream(answeringUpstream).Set("none."+zone, lab.Behaviour{Rcode: dns.RcodeNameError})
				r.Upstream(answeringUpstream).Set("far."+zone, lab.Behaviour{Delay: 120 * time.Millisecond})
			}
			lookups := r.healthyTraffic(length)
			r.awaitLast()
			traces := 0
			var w wrongs
			r.stopTracer(func(tr *trace.Trace) {
				w.unless(len(tr.Diagnosis) == 0, "%s %s: %s", tr.QName, tr.QType, said(tr))
				if tr.Exchange == nil && tr.Query == nil {
					return // the cache asked, and nobody waited
				}
				traces++
				tr, wrong := r.pastProxy(tr)
				w = append(w, wrong...)
				whole := tr.Exchange != nil && tr.Query != nil && tr.Outcome == trace.OutcomeAnswered
				w.unless(whole, "not whole: %s", brief(tr))
			})
			for _, wrong := range w[:min(len(w), 20)] {
				t.Error(wrong)
			}
			if traces != lookups || len(w) > 0 {
				t.Errorf("%d traces of %d lookups, %d times something is wrong", traces, lookups, len(w))
			}
		})
	}
}

// awaitLast makes a lookup that is not checked, and waits for its trace: those before it
// are written then, or will be when the tracer stops. It looks for the name alone: the
// traces of ten minutes are many.
func (r *topologyRig) awaitLast() {
	r.t.Helper()
	name := warmUpLabel + ".last." + topologyZones[0]
	if _, err := r.Client(r.top.Client).Exchange(r.t.Context(), lab.Query{Name: name, Server: r.top.Services[0]}); err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	file, err := os.Open(r.RecordFile())
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	lines, begun := bufio.NewReader(file), ""
	for end := time.Now().Add(patience / 2); time.Now().Before(end); {
		part, err := lines.ReadString('\n')
		begun += part
		switch {
		case strings.Contains(begun, name):
			return
		case errors.Is(err, io.EOF):
			time.Sleep(50 * time.Millisecond)
		case err != nil:
			r.t.Fatal(err)
		default:
			begun = ""
		}
	}
}

// healthyTraffic makes lookups for a time, some forty a second, and tells how many.
func (r *topologyRig) healthyTraffic(length time.Duration) (lookups int) {
	r.t.Helper()
	const rate = 40.0
	rng := rand.New(rand.NewPCG(7, 11))
	for end := time.Now().Add(length); time.Now().Before(end); {
		queries := r.healthyQueries(rng, lookups)
		for _, res := range r.Client(r.top.Client).ExchangeTogether(r.t.Context(), queries...) {
			if res.Err != nil {
				r.t.Fatalf("%s over %s to %s: %v", res.Name, res.Network, res.Server, res.Err)
			}
		}
		lookups += len(queries)
		time.Sleep(time.Duration(float64(time.Second) / rate * rng.ExpFloat64()))
	}
	return lookups
}

// healthyQueries are what an application asks at once, the i-th.
func (r *topologyRig) healthyQueries(rng *rand.Rand, i int) []lab.Query {
	family := rng.IntN(2)
	q := lab.Query{Server: r.top.Services[family], Unconnected: rng.IntN(4) == 0}
	if rng.IntN(6) == 0 {
		q.Network, q.Unconnected = "tcp", false
	}
	zone := topologyZones[family]
	switch rng.IntN(10) {
	case 0, 1:
		q.Name = fmt.Sprintf("n%d.fresh.%s", i, zone)
	case 2:
		q.Name = fmt.Sprintf("n%d.far.%s", rng.IntN(50), zone)
	case 3:
		q.Name = fmt.Sprintf("n%d.none.%s", rng.IntN(20), zone)
	default:
		q.Name = fmt.Sprintf("n%d.popular.%s", rng.IntN(8), zone)
	}
	if rng.IntN(3) > 0 {
		return []lab.Query{q}
	}
	other := q
	other.Type = dns.TypeAAAA
	return []lab.Query{q, other}
}
