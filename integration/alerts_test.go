//go:build dashboards

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	{"shadow.test.", behaves("cluster.local.", lab.Behaviour{Rcode: dns.RcodeNameError}), func(r *faultRig, zone string) {
		glibc := buildResolver(r.t, "glibc")
		conf := strings.Replace(kubernetesResolvConf("demo", ""), " cluster.local\n", " cluster.local "+strings.TrimSuffix(zone, ".")+"\n", 1)
		for i := range 20 {
			r.resolve("client-a", glibc, fmt.Sprintf("n%d.demo.svc.cluster.local", i), conf)
		}
	}, []string{`DNSTraceSearchPath{code="search-path-shadowed"}`}},
	{"nohost.test.", nothing, asks(20, lab.Query{Server: netip.MustParseAddrPort("192.168.49.99:53"), Timeout: 4 * time.Second}),
		[]string{`DNSTracePacketsDropped{code="dropped-other"}`}},
	{"burst.test.", func(r *faultRig) func() {
		must(r, nil, r.server.Signal(syscall.SIGSTOP))
		return func() { must(r, nil, r.server.Signal(syscall.SIGCONT)) }
	}, func(r *faultRig, zone string) {
		// The usual receive buffer of 208 KiB holds some 270 queries.
		r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: 600, Rate: 1e6, InFlight: 600, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("n%d.%s", i, zone), Timeout: 500 * time.Millisecond}
		}})
	}, []string{`DNSTraceServerOverloaded{code="dropped-receive-buffer"}`}},
	{"mute.test.", nothing, func(r *faultRig, zone string) {
		addr := netip.AddrPortFrom(r.Host("client-b").V4, 53)
		server, err := r.Serve("client-b", addr)
		if err != nil {
			r.t.Fatal(err)
		}
		server.Set(zone, lab.Behaviour{Silent: true})
		asks(20, lab.Query{Server: addr, Timeout: time.Second})(r, zone)
	}, []string{`DNSTracePacketsLost{code="no-response-seen"}`}},
	{"otherquestion.test.", behaves("otherquestion.test.", lab.Behaviour{Mangle: lab.OtherQuestion}), asks(many, lab.Query{Timeout: time.Second}),
		[]string{`DNSTraceResponsesRejected{code="response-rejected"}`}},
	{"untranslated.test.", func(r *faultRig) func() {
		undo, err := r.UntranslatedReplies()
		return must(r, undo, err)
	}, asks(many, lab.Query{Timeout: time.Second}), []string{`DNSTraceResponsesRejected{code="unexpected-source"}`, "DNSTraceLookupsUnanswered"}},
	{"contradicts.test.", behaves("contradicts.test.", lab.Behaviour{Type: dns.TypeAAAA, Rcode: dns.RcodeNameError}), func(r *faultRig, zone string) {
		for i := range 20 {
			name := fmt.Sprintf("n%d.%s", i, zone)
			r.Client("client-a").ExchangeTogether(context.Background(), lab.Query{Name: name}, lab.Query{Name: name, Type: dns.TypeAAAA})
		}
	}, []string{`DNSTraceResponsesRejected{code="inconsistent-answers"}`}},
	{"unheard.test.", func(r *faultRig) func() {
		// Answers vanish before the client; its neighbour entry is known by now.
		undo, err := r.VanishAt("client-a")
		return must(r, undo, err)
	}, asks(many, lab.Query{Timeout: time.Second}), []string{`DNSTracePacketsLost{code="response-lost"}`}},
	{"late.test.", behaves("late.test.", lab.Behaviour{Delay: 400 * time.Millisecond}),
		asks(100, lab.Query{RetransmitAfter: 250 * time.Millisecond}), []string{`DNSTraceClientsGaveUp{code="retransmission"}`}},
	{"erratic.test.", nothing, asks(100, lab.Query{}), []string{`DNSTraceServerOverloaded{code="server-slow"}`}},
	{"truncated.test.", behaves("truncated.test.", lab.Behaviour{Truncated: true}), func(r *faultRig, zone string) {
		for i := range 120 {
			name := fmt.Sprintf("n%d.%s", i, zone)
			r.ask(lab.Query{Name: name})
			r.ask(lab.Query{Name: name, Network: "tcp"})
		}
	}, []string{`DNSTraceLargeResponses{code="truncated-retry"}`}},
	{"cut.test.", behaves("cut.test.", lab.Behaviour{Truncated: true}), func(r *faultRig, zone string) {
		for i := range 120 {
			r.ask(lab.Query{Name: fmt.Sprintf("n%d.%s", i, zone)})
		}
	}, []string{`DNSTraceLargeResponses{code="truncated-not-retried"}`}},
	{"torn.test.", func(r *faultRig) func() {
		undo, err := r.DropFragments("client-a")
		return must(r, undo, err)
	}, func(r *faultRig, zone string) {
		r.Upstream(0).Set(zone, lab.Behaviour{Size: 3000})
		r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: 120, Rate: 200, InFlight: 120, Query: func(i int) lab.Query {
			name := fmt.Sprintf("n%d.%s", i, zone)
			return lab.Query{Name: name, Message: new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(4096, false), Server: r.Upstream(0).V4(), Timeout: time.Second}
		}})
	}, []string{`DNSTraceLargeResponses{code="path-mtu"}`, "DNSTraceLookupsUnanswered"}},
}

// nothing is broken: it is the lookups that are not well.
func nothing(*faultRig) func() { return func() {} }

// otherwise are the findings whose code no row of faults has in the labels of an alert.
var otherwise = map[string]string{
	"upstream-timeout":   "the alerts on attempts say it: silent.test.",
	"upstream-unhealthy": "the alerts on attempts say it: silent.test.",
	"upstream-error":     "the alerts on attempts say it: servfail.test.",
	"slow-upstream":      "the alert on upstreams' time says it: slow.test.",
	"refused-by-server":  "the alert on responses says it: refused.test.",
	"cached-failure":     "the alert on responses says it: servfail.test.",
	"concurrency-limit":  "the alert on responses says it: refused.test.",
	"type-ignored":       "the alerts on attempts say it: silent.test.",
	"forwarding-loop":    "it would take the CPU that the others need; alerts_test.yaml has it",
	"nxdomain-storm":     "told once in 12 s: more than the hastened windows hold; alerts_test.yaml has it in its own time",
}

// warped is the Corefile of these faults: plain forwarding, and a zone whose plugin
// takes its time.
func warped(l *lab.Lab) string {
	return plainForwarding(l) + erratic(l, "erratic.test", 700*time.Millisecond)
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

// everyFinding wants each code, all of which the tracer counts from its start, in the
// alerts of a fault, or in the list that says why not.
func everyFinding(t *testing.T, prometheus string) {
	t.Helper()
	counted, err := askPrometheus(t, prometheus, "dnstrace_findings_total", 0)
	if err != nil || len(counted) <= len(otherwise) {
		t.Fatal(counted, err)
	}
	for _, series := range counted {
		code := series.Metric["code"]
		inRow := slices.ContainsFunc(faults, func(f fault) bool {
			return slices.ContainsFunc(f.alerts, func(alert string) bool { return strings.Contains(alert, `{code="`+code+`"}`) })
		})
		if inRow == (otherwise[code] != "") {
			t.Errorf("the finding %s is in a fault's alerts: %t; otherwise: %q", code, inRow, otherwise[code])
		}
	}
}

// The faults of the lab raise the alerts that tell of them, in a real Prometheus that
// reads a real tracer. Nothing fires before the first; a tracer that stops and an
// output that is full are told of too.
func TestFaultsRaiseAlerts(t *testing.T) {
	addr := freeAddr(t)
	r := newFaultRigInLab(t, warped, "--timeout", "4s", "--metrics", addr)
	prometheus := startPrometheus(t, r.Lab, addr, hasten(t, r.Lab), nativeHistograms)
	r.together(numbered(20, "healthy.test."), lab.Query{})
	r.trace("n19.healthy.test.")
	calm(t, prometheus)
	everyFinding(t, prometheus)
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
	tracer, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--output", "file:"+fullDisk(t), "--metrics", addr)...)
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

// nowhere is a kubeconfig of an API server that is not there.
const nowhere = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: x, context: {cluster: c}}]
current-context: x
`

// What ails the tracer raises alerts: it finds no API server, loses a socket that it
// may not make again, and gets no processor time while packets come.
func TestAilingTracerRaiseAlerts(t *testing.T) {
	addr := freeAddr(t)
	r := &rig{lab.New(t, lab.Config{}), t}
	folder, kubeconfig := filepath.Join(r.Dir(), "run"), filepath.Join(r.Dir(), "kubeconfig")
	sockets := []string{filepath.Join(folder, "records.sock"), filepath.Join(folder, "api.sock")}
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	tracer, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--timeout", "1s", "--record", "trace", "--metrics", addr,
		"--listen", sockets[0], "--api", sockets[1], "--kubernetes", kubeconfig)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, "dnstrace {\n output unix "+sockets[0]+"\n}")); err != nil {
		t.Fatal(err)
	}
	prometheus := startPrometheus(t, r.Lab, addr, hasten(t, r.Lab))
	firing(t, r, prometheus, "DNSTraceNamesStale")

	const nobody = 65534
	if err := errors.Join(os.Chown(folder, nobody, nobody), os.Remove(sockets[0])); err != nil {
		t.Fatal(err)
	}
	firing(t, r, prometheus, `DNSTraceSocketUnreachable{socket="records"}`)

	// As TestRingsTooSmall: four times what the rings hold.
	if err := tracer.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: 6000, Rate: 1500, Query: func(i int) lab.Query {
		return lab.Query{Name: fmt.Sprintf("stalled%d.test.", i), RetransmitAfter: time.Second}
	}})
	if err := tracer.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	firing(t, r, prometheus, "DNSTraceEventsLost")
}
