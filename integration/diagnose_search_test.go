package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// clusterForwarding knows that nothing exists below cluster.local.
func clusterForwarding(l *lab.Lab) string {
	for i := range 2 {
		l.Upstream(i).Set("cluster.local.", lab.Behaviour{Rcode: dns.RcodeNameError})
	}
	return forwarding(l, "")
}

// A name outside the cluster, as each resolver asks for it from a pod: four names,
// A and AAAA each. All eight are one resolution, and say what they cost; with a
// final dot it is two, and nothing to tell.
func TestDiagnoseSearchPath(t *testing.T) {
	for _, name := range []string{"glibc", "musl", "go"} {
		t.Run(name, func(t *testing.T) {
			with := buildResolver(t, name)
			r := newFaultRig(t, clusterForwarding)
			conf := kubernetesResolvConf("demo", "")
			r.resolveBefore("client-a", with)
			r.resolve("client-a", with, "www.out.test", conf)
			time.Sleep(100 * time.Millisecond) // another call
			r.resolve("client-a", with, "www.dotted.test.", conf)

			lookups := r.settled("www.out.test", 8)
			resolution := lookups[0].TraceID.String()
			var told []*trace.Trace
			for _, tr := range lookups {
				if tr.Resolution != resolution {
					t.Errorf("%s %s: resolution %q, expected %s", tr.QName, tr.QType, tr.Resolution, resolution)
				}
				if slices.Contains(findings(tr), "search-path-amplification") {
					told = append(told, tr)
				}
			}
			if len(told) != 1 {
				t.Fatalf("told with %d lookups, expected one", len(told))
			}
			wantAll(t, evidence(t, told[0], "search-path-amplification"), "One name took 8 queries", "3 names of the search list",
				"www.out.test.demo.svc.cluster.local.", "www.out.test.svc.cluster.local.", "www.out.test.cluster.local.", "www.out.test. was found")

			dotted := r.settled("www.dotted.test", 2)
			for _, tr := range dotted {
				if tr.Resolution != dotted[0].TraceID.String() || tr.Resolution == resolution || len(tr.Diagnosis) != 0 {
					t.Errorf("%s %s: resolution %q, findings %v", tr.QName, tr.QType, tr.Resolution, findings(tr))
				}
			}
			r.keep("search-path-"+name, "www.out.test", "www.out.test.demo.svc.cluster.local", "www.out.test.svc.cluster.local", "www.out.test.cluster.local")
			r.keep("search-path-"+name+"-not", "www.dotted.test")
		})
	}
}

// A name that does not exist anywhere fails with every suffix, and then as it is.
func TestDiagnoseSearchPathInVain(t *testing.T) {
	with := buildResolver(t, "glibc")
	r := newFaultRig(t, clusterForwarding)
	for i := range 2 {
		r.Upstream(i).Set("unknown-galaxy.", lab.Behaviour{Rcode: dns.RcodeNameError})
	}
	r.resolve("client-a", with, "unknown-galaxy", kubernetesResolvConf("starwars", ""))
	told := 0
	for _, tr := range r.settled("unknown-galaxy", 8) {
		if slices.Contains(findings(tr), "search-path-amplification") {
			told++
			wantAll(t, evidence(t, tr, "search-path-amplification"), "unknown-galaxy. failed too")
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	r.keep("search-path-in-vain", "unknown-galaxy", "unknown-galaxy.starwars.svc.cluster.local", "unknown-galaxy.svc.cluster.local", "unknown-galaxy.cluster.local")
}

// A zone of the search list has a wildcard, which answers for names that need no suffix; a
// suffix that fails ends the list of musl, not that of glibc. A name of the client's own
// domain, which is found with a suffix, is what the list is for.
func TestDiagnoseSearchPathShadowed(t *testing.T) {
	musl, glibc := buildResolver(t, "musl"), buildResolver(t, "glibc")
	r := newFaultRig(t, func(l *lab.Lab) string {
		return forwarding(l, "template IN A wild.test {\nanswer \"{{ .Name }} 60 IN A 203.0.113.99\"\n}\n"+
			"template ANY ANY broken.test {\nrcode SERVFAIL\n}\ntemplate ANY ANY cluster.local {\nrcode NXDOMAIN\n}")
	})
	search := func(list string) string {
		return "nameserver " + lab.ServiceV4.Addr().String() + "\nsearch " + list + "\noptions ndots:5 timeout:1 attempts:1\n"
	}
	const cluster = "demo.svc.cluster.local svc.cluster.local cluster.local"
	r.resolveBefore("client-a", musl)
	r.resolve("client-a", glibc, "db.own", search(cluster+" corp.test"))
	r.resolve("client-a", glibc, "api.eu.own", search(cluster+" corp.test"))
	r.resolve("client-a", glibc, "www.late.example", search(cluster+" wild.test"))
	r.resolve("client-a", glibc, "www.first.example", search("wild.test "+cluster))
	r.resolve("client-a", glibc, "a.goes.test", search("demo.svc.cluster.local broken.test svc.cluster.local"))
	r.resolve("client-a", musl, "a.ends.test", search("demo.svc.cluster.local broken.test svc.cluster.local"))
	// What the tracer knows goes on for as long as it takes to be sure.
	time.Sleep(1100 * time.Millisecond)
	r.answered(lab.Query{Name: "after.a.ends.test."})
	r.trace("after.a.ends.test.")

	late := r.settled("www.late.example", 8)
	wantAll(t, evidence(t, only(t, late, "search-path-amplification"), "search-path-amplification"), "the search suffix wild.test. answered, so that www.late.example. itself was never asked")
	wantAll(t, evidence(t, only(t, r.settled("www.first.example", 2), "search-path-shadowed"), "search-path-shadowed"),
		"wild.test. answered for www.first.example., which was never asked: a wildcard", "the same for www.late.example.", "203.0.113.99")
	wantAll(t, evidence(t, only(t, r.settled("a.ends.test", 4), "search-path-shadowed"), "search-path-shadowed"),
		"broken.test. failed, and the client stopped there: a.ends.test. was never asked", "answered NXDOMAIN: a.ends.test.demo.svc.cluster.local.")
	goes := r.settled("a.goes.test", 8)
	for _, tr := range goes {
		if tr.Resolution != goes[0].Resolution || tr.Resolution == "" {
			t.Errorf("%s %s: resolution %q, expected %q", tr.QName, tr.QType, tr.Resolution, goes[0].Resolution)
		}
	}
	for _, name := range []string{"a.goes.test", "db.own", "api.eu.own", "www.late.example"} {
		for _, tr := range r.settled(name, 8) {
			if slices.Contains(findings(tr), "search-path-shadowed") {
				t.Errorf("%s: %v", tr.QName, tr.Diagnosis)
			}
		}
	}
	r.keep("search-path-shadowed", append(searchedFor("www.late.example", "wild.test"), append(searchedFor("www.first.example", "wild.test"), searchedFor("a.ends.test", "broken.test")...)...)...)
	r.keep("search-path-shadowed-not", append(searchedFor("a.goes.test", "broken.test"), append(searchedFor("db.own", "corp.test"), searchedFor("api.eu.own", "corp.test")...)...)...)
}

// only returns the one trace that has a finding.
func only(t *testing.T, traces []*trace.Trace, code string) *trace.Trace {
	t.Helper()
	var told []*trace.Trace
	for _, tr := range traces {
		if slices.Contains(findings(tr), code) {
			told = append(told, tr)
		}
	}
	if len(told) != 1 {
		t.Fatalf("%s: %s is told with %d lookups, expected one", traces[0].QName, code, len(told))
	}
	return told[0]
}

// searchedFor are a name and what a search list makes of it.
func searchedFor(name, suffix string) []string {
	return []string{name, name + ".demo.svc.cluster.local", name + ".svc.cluster.local", name + ".cluster.local", name + "." + suffix}
}

// Two processes that resolve the same name at once are two resolutions, though
// their lookups alternate.
func TestJoinTwoProcessesAreTwoResolutions(t *testing.T) {
	with := buildResolver(t, "musl")
	r := newFaultRig(t, clusterForwarding)
	done := make(chan struct{})
	for range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			r.resolve("client-a", with, "www.both.test", kubernetesResolvConf("demo", ""))
		}()
	}
	<-done
	<-done
	// No resolution has lookups of two processes, and no process has two. Where the
	// process of a packet could not be told, its lookup is in no other's.
	processOf, last := map[string]int{}, map[int]*trace.Trace{}
	for _, tr := range r.settled("www.both.test", 16) {
		if tr.Exchange.Client == nil || tr.Exchange.Client.PID == 0 {
			continue
		}
		pid := tr.Exchange.Client.PID
		if known, ok := processOf[tr.Resolution]; ok && known != pid {
			t.Errorf("resolution %s is of processes %d and %d", tr.Resolution, known, pid)
		}
		if before := last[pid]; before != nil && before.Resolution != tr.Resolution && !pausedBefore(before, tr) {
			t.Errorf("process %d has resolutions %s and %s", pid, before.Resolution, tr.Resolution)
		}
		processOf[tr.Resolution], last[pid] = pid, tr
	}
	if len(last) != 2 {
		t.Errorf("lookups of %d processes, expected two", len(last))
	}
}

// pausedBefore tells whether a resolver went on with the next name so late, as on a machine
// that has no processor for it, that nothing tells any more that it is the same call's: the
// tracer takes 50 ms for the longest (assemble, goesOn).
func pausedBefore(before, next *trace.Trace) bool {
	const goesOn = 50 * time.Millisecond
	return next.Exchange.Time.Sub(before.Exchange.Time.Add(before.Exchange.Duration.Duration())) > goesOn
}

// The queries for A and AAAA are lost, and the resolver asks again after a second: one
// resolution, whether the retry comes from the same port or from another.
func TestJoinRetryIsOneResolution(t *testing.T) {
	for _, name := range []string{"glibc", "musl", "go"} {
		t.Run(name, func(t *testing.T) {
			with := buildResolver(t, name)
			r := newFaultRig(t, plainForwarding, "--timeout", "3s")
			r.resolveBefore("client-a", with)
			r.loseFirst("www.retry.test", 2)
			r.resolve("client-a", with, "www.retry.test.", "nameserver "+lab.ServiceV4.Addr().String()+"\noptions timeout:1 attempts:3\n")
			exchanges := 2
			if name == "go" {
				exchanges = 4 // A and AAAA each from a socket and thread of its own, and again
			}
			lookups := r.settled("www.retry.test", exchanges)
			first := map[string]*trace.Trace{}
			sent := 0
			for _, tr := range lookups {
				if first[tr.QType] == nil {
					first[tr.QType] = tr
				}
				sent += tr.Exchange.Transmissions
			}
			// Of two sockets it is told by their times alone that they are one call.
			of := func(*trace.Trace) *trace.Trace { return lookups[0] }
			a, aaaa := first["A"], first["AAAA"]
			if a == nil || aaaa == nil {
				t.Fatalf("A %t, AAAA %t", a != nil, aaaa != nil)
			}
			if a.Exchange.ClientPort != aaaa.Exchange.ClientPort && apart(a, aaaa) {
				of = func(tr *trace.Trace) *trace.Trace { return first[tr.QType] }
			}
			for _, tr := range lookups {
				if want := of(tr).Resolution; tr.Resolution == "" || tr.Resolution != want {
					t.Errorf("%s from port %d, %s, sent %d times: resolution %q, expected %q", tr.QType, tr.Exchange.ClientPort, tr.Outcome,
						tr.Exchange.Transmissions, tr.Resolution, want)
				}
			}
			if sent < 4 {
				t.Errorf("%d queries were sent, expected both twice: nothing was asked again", sent)
			}
			r.keep("retry-"+name, "www.retry.test")
		})
	}
}

// apart tells whether two lookups of two sockets begin further from each other than the
// tracer takes for one call's (assemble, together).
func apart(a, b *trace.Trace) bool {
	const together = 5 * time.Millisecond
	return a.Exchange.Time.Sub(b.Exchange.Time).Abs() > together
}

// loseFirst drops the first n queries for a name on their way to the Service. Rules do
// that and not a time, which a resolver that starts late would miss.
func (r *faultRig) loseFirst(name string, n int) {
	r.t.Helper()
	for range n {
		// Each drops the first packet that gets to it.
		if _, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Network: "udp", Family: 4, Leg: lab.ClientLeg, Name: name,
			Extra: []string{"-m", "statistic", "--mode", "nth", "--every", "1000000", "--packet", "0"}}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// settled waits until at least n traces of clients' lookups of a name, with any
// suffix, are there and no more come, and returns them in order of time.
func (r *faultRig) settled(name string, n int) []*trace.Trace {
	r.t.Helper()
	var found []*trace.Trace
	var since time.Time
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		before := len(found)
		found = found[:0]
		for _, tr := range r.allTraces() {
			if strings.HasPrefix(tr.QName, name+".") && tr.Exchange != nil {
				found = append(found, tr)
			}
		}
		if len(found) != before {
			since = time.Now()
		}
		if len(found) >= n && time.Since(since) > 2*time.Second {
			slices.SortFunc(found, func(a, b *trace.Trace) int { return a.Time.Compare(b.Time) })
			return found
		}
	}
	r.t.Fatalf("%s: %d traces, expected %d", name, len(found), n)
	return nil
}
