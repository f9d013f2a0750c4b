//go:build dashboards

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// fault is what is broken, lookups that notice, and the alerts that tell of it, each with
// the labels that it must have.
type fault struct {
	name    string
	inject  func(r *faultRig) func()
	provoke func(r *faultRig, zone string)
	alerts  []string
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

// asks makes so many lookups below the fault's zone, each as the query says.
func asks(n int, q lab.Query) func(r *faultRig, zone string) {
	return func(r *faultRig, zone string) {
		r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: n, Rate: 200, InFlight: n, Query: func(i int) lab.Query {
			q := q
			q.Name = fmt.Sprintf("n%d.%s", i, zone)
			return q
		}})
	}
}

const many = 300

var faults = []fault{
	{"silent.test.", func(r *faultRig) func() { return r.SilentUpstream(0, "silent.test.") }, asks(many, lab.Query{Timeout: 5 * time.Second}),
		[]string{"DNSTraceUpstreamTimeouts", "DNSTraceUpstreamDown", "DNSTraceLatencyHigh"}},
	{"servfail.test.", behaves("servfail.test.", lab.Behaviour{Rcode: dns.RcodeServerFailure}), asks(many, lab.Query{}), []string{"DNSTraceServfailHigh", "DNSTraceUpstreamErrors"}},
	{"refused.test.", behaves("refused.test.", lab.Behaviour{Rcode: dns.RcodeRefused}), asks(many, lab.Query{}), []string{"DNSTraceRefusedHigh"}},
	{"slow.test.", behaves("slow.test.", lab.Behaviour{Delay: 1200 * time.Millisecond}), asks(many, lab.Query{Timeout: 5 * time.Second}), []string{"DNSTraceUpstreamSlow"}},
	{"large.test.", behaves("large.test.", lab.Behaviour{Size: 3000}), asks(many, lab.Query{}), []string{`DNSTraceLargeResponses{code="oversized-response"}`}},
	{"dropped.test.", func(r *faultRig) func() {
		undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
		return must(r, undo, err)
	}, asks(many, lab.Query{Timeout: time.Second}), []string{`DNSTracePacketsDropped{code="dropped-by-netfilter"}`, "DNSTraceLookupsUnanswered"}},
	{"vanished.test.", func(r *faultRig) func() {
		undo, err := r.VanishAt(lab.CoreDNS)
		return must(r, undo, err)
	}, asks(many, lab.Query{Timeout: time.Second}), []string{`DNSTracePacketsLost{code="query-never-arrived"}`}},
	{"gave-up.test.", func(r *faultRig) func() {
		slow := behaves("gave-up.test.", lab.Behaviour{Delay: 300 * time.Millisecond})(r)
		closed := r.ClosedClientPort("client-a")
		return func() { slow(); closed() }
	}, asks(many, lab.Query{}), []string{`DNSTraceClientsGaveUp{code="client-gave-up"}`}},
	{"closed.test.", func(r *faultRig) func() {
		undo, err := r.NoListener(r.server)
		return must(r, undo, err)
	}, asks(many, lab.Query{Timeout: time.Second}), []string{`DNSTraceNoServer{code="dropped-no-socket"}`}},
	{"stale.test.", func(r *faultRig) func() {
		pod := r.Host(lab.CoreDNS)
		to := func(v4 netip.Addr) {
			must(r, nil, r.SetEndpoints(netip.AddrPortFrom(v4, 53), netip.AddrPortFrom(pod.V6, 53)))
		}
		to(lab.PodNetV4.Addr().Next().Next().Next().Next().Next().Next()) // nobody's
		return func() { to(pod.V4) }
	}, asks(20, lab.Query{Timeout: 4 * time.Second}), []string{`DNSTracePacketsDropped{code="stale-endpoint"}`}},
	{"starved.test.", func(r *faultRig) func() {
		signal := func(s syscall.Signal) { must(r, nil, r.server.Signal(s)) }
		signal(syscall.SIGSTOP)
		time.AfterFunc(700*time.Millisecond, func() { _ = r.server.Signal(syscall.SIGCONT) })
		return func() { signal(syscall.SIGCONT) }
	}, asks(many, lab.Query{Timeout: 5 * time.Second}), []string{`DNSTraceServerOverloaded{code="server-overloaded"}`}},
	{"raced.test.", func(r *faultRig) func() {
		undo, err := r.RaceLostBy("raced.test.", dns.TypeA)
		return must(r, undo, err)
	}, func(r *faultRig, zone string) {
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				r.Client("client-a").ExchangeTogether(context.Background(), lab.Query{Name: zone, Timeout: time.Second}, lab.Query{Name: zone, Type: dns.TypeAAAA})
			})
		}
		group.Wait()
	}, []string{`DNSTraceConntrack{code="conntrack-race"}`}},
	{"full.test.", func(r *faultRig) func() {
		undo, err := r.FillConntrack()
		return must(r, undo, err)
	}, asks(20, lab.Query{Timeout: time.Second}), []string{`DNSTraceConntrack{code="conntrack-full"}`}},
	{"search.test.", behaves("cluster.local.", lab.Behaviour{Rcode: dns.RcodeNameError}), func(r *faultRig, zone string) {
		glibc := buildResolver(r.t, "glibc")
		for i := range 120 {
			r.resolve("client-a", glibc, fmt.Sprintf("n%d.%s", i, strings.TrimSuffix(zone, ".")), kubernetesResolvConf("demo", ""))
		}
	}, []string{`DNSTraceSearchPath{code="search-path-amplification"}`}},
}

// calm waits until the rules have looked at some scrapes of the tracer, and wants no
// alert. Until the first scrape no tracer is known; and the increase of what is counted
// before it would not be seen.
func calm(t *testing.T, prometheus string) {
	t.Helper()
	for end := time.Now().Add(alertWait); ; time.Sleep(time.Second) {
		scraped, err := askPrometheus(t, prometheus, `min_over_time(up[3s]) == 1 and count_over_time(up[3s]) > 2`, 0)
		found, failed := askPrometheus(t, prometheus, `ALERTS{alertstate="firing"}`, 0)
		if err = errors.Join(err, failed); err == nil && len(scraped) == 1 && len(found) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("all is well, and these fire: %v %v", found, err)
		}
	}
}

// The faults of the lab raise the alerts that tell of them, in a real Prometheus that
// reads a real tracer. Nothing fires before the first; a tracer that stops and an
// output that is full are told of too.
func TestFaultsRaiseAlerts(t *testing.T) {
	addr := freeAddr(t)
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "4s", "--metrics", addr)
	prometheus := startPrometheus(t, r.Lab, addr, hasten(t, r.Lab), nativeHistograms)
	r.together(numbered(20, "healthy.test."), lab.Query{})
	r.trace("n19.healthy.test.")
	calm(t, prometheus)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			undo := f.inject(r)
			f.provoke(r, f.name)
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
	tracer, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--output", "file:/dev/full", "--metrics", addr)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	prometheus := startPrometheus(t, r.Lab, addr, hasten(t, r.Lab))
	calm(t, prometheus)
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
