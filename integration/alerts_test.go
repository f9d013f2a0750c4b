//go:build dashboards

package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// fault is what is broken, in a way that lookups below the zone notice, and the
// alerts that tell of it.
type fault struct {
	zone   string
	inject func(r *faultRig) func()
	ask    lab.Query
	count  int
	alerts []string
}

func behaves(zone string, b lab.Behaviour) func(r *faultRig) func() {
	return func(r *faultRig) func() {
		var undo []func()
		for i := range 2 {
			undo = append(undo, r.Upstream(i).Set(zone, b))
		}
		return func() {
			for _, u := range undo {
				u()
			}
		}
	}
}

func must(r *faultRig, undo func(), err error) func() {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return undo
}

// many lookups are what stands out among others of the machine, which count too.
const many = 300

var faults = []fault{
	{"silent.test.", func(r *faultRig) func() { return r.SilentUpstream(0, "silent.test.") }, lab.Query{Timeout: 5 * time.Second}, many,
		[]string{"DNSTraceUpstreamTimeouts", "DNSTraceUpstreamDown", "DNSTraceLatencyHigh"}},
	{"servfail.test.", behaves("servfail.test.", lab.Behaviour{Rcode: dns.RcodeServerFailure}), lab.Query{}, many, []string{"DNSTraceServfailHigh", "DNSTraceUpstreamErrors"}},
	{"refused.test.", behaves("refused.test.", lab.Behaviour{Rcode: dns.RcodeRefused}), lab.Query{}, many, []string{"DNSTraceRefusedHigh"}},
	{"slow.test.", behaves("slow.test.", lab.Behaviour{Delay: 1200 * time.Millisecond}), lab.Query{Timeout: 5 * time.Second}, many, []string{"DNSTraceUpstreamSlow"}},
	{"large.test.", behaves("large.test.", lab.Behaviour{Size: 3000}), lab.Query{}, many, []string{"DNSTraceLargeResponses"}},
	{"dropped.test.", func(r *faultRig) func() {
		undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
		return must(r, undo, err)
	}, lab.Query{Timeout: time.Second}, many, []string{"DNSTracePacketsDropped", "DNSTraceLookupsUnanswered"}},
	{"vanished.test.", func(r *faultRig) func() {
		undo, err := r.VanishAt(lab.CoreDNS)
		return must(r, undo, err)
	}, lab.Query{Timeout: time.Second}, many, []string{"DNSTracePacketsLost"}},
	{"gave-up.test.", func(r *faultRig) func() {
		slow := behaves("gave-up.test.", lab.Behaviour{Delay: 300 * time.Millisecond})(r)
		closed := r.ClosedClientPort("client-a")
		return func() { slow(); closed() }
	}, lab.Query{}, many, []string{"DNSTraceClientsGaveUp"}},
	{"closed.test.", func(r *faultRig) func() {
		undo, err := r.NoListener(r.server)
		return must(r, undo, err)
	}, lab.Query{Timeout: time.Second}, many, []string{"DNSTraceNoServer"}},
}

// The faults of the lab raise the alerts that tell of them, in a real Prometheus that
// reads a real tracer. Nothing fires before the first; a tracer that stops and an
// output that is full are told of too.
func TestFaultsRaiseAlerts(t *testing.T) {
	addr := freeAddr(t)
	r := newFaultRig(t, plainForwarding, "--timeout", "2s", "--metrics", addr)
	prometheus := startPrometheus(t, r.Lab, addr, hasten(t, r.Lab), nativeHistograms)
	r.together(numbered(20, "healthy.test."), lab.Query{})
	r.trace("n19.healthy.test.")
	// Until the first scrape no tracer is known; then the rules have looked at it.
	for end := time.Now().Add(alertWait); ; time.Sleep(time.Second) {
		scraped, err := askPrometheus(t, prometheus, `min_over_time(up[3s]) == 1 and count_over_time(up[3s]) > 2`, 0)
		found, failed := askPrometheus(t, prometheus, `ALERTS{alertstate="firing"}`, 0)
		if err = errors.Join(err, failed); err == nil && len(scraped) == 1 && len(found) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("all is well, and these fire: %v %v", found, err)
		}
	}
	for _, f := range faults {
		t.Run(f.zone, func(t *testing.T) {
			undo := f.inject(r)
			r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: f.count, Rate: 200, InFlight: f.count, Query: func(i int) lab.Query {
				q := f.ask
				q.Name = fmt.Sprintf("n%d.%s", i, f.zone)
				return q
			}})
			undo()
			for _, alert := range f.alerts {
				firing(t, r.rig, prometheus, alert)
			}
		})
	}
}

// What the tracer itself loses raises alerts too.
func TestLossesRaiseAlerts(t *testing.T) {
	addr := freeAddr(t)
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer("--output", "file:/dev/full", "--metrics", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	prometheus := startPrometheus(t, r.Lab, addr, hasten(t, r.Lab))
	for i := range 5 {
		r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: 10, Rate: 20, Query: func(n int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("n%d-%d.test.", i, n)}
		}})
	}
	firing(t, r, prometheus, "DNSTraceRecordsLost")
	// It ends with an error, because of the output.
	_ = tracer.Stop()
	firing(t, r, prometheus, "DNSTraceDown")
}
