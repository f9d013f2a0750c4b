package integration

import (
	"fmt"
	"math/rand/v2"
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
			r.await(func(all []*trace.Trace) bool { return len(toCheck(all)) >= lookups })
			traces := toCheck(r.stopTracer())
			for _, tr := range traces {
				if tr.Exchange == nil || tr.Query == nil || tr.Outcome != trace.OutcomeAnswered {
					t.Errorf("incomplete: %s", brief(tr))
				}
				if len(tr.Diagnosis) > 0 {
					t.Errorf("%s %s: %s", tr.QName, tr.QType, said(tr))
				}
			}
			if len(traces) != lookups {
				t.Errorf("%d traces of %d lookups", len(traces), lookups)
			}
		})
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
