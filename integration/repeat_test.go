package integration

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// repeatEnv says how many lookups meet each fault.
const repeatEnv = "DNSTRACE_REPEAT"

// repeated is a fault that every lookup of a zone meets in the same way, and what each of them
// has to be told: this finding, and no other.
type repeated struct {
	name   string
	inject func(r *faultRig, zone string) func()
	query  lab.Query
	want   string
	also   []string // what only many lookups show, with some of them
	more   more
}

// more is what few faults need.
type more struct {
	corefile func(l *lab.Lab) string // nil: plainForwarding
	timeout  string                  // of the tracer; empty: longer than the client's
	zone     string                  // of the names; empty: below test.
	most     int                     // so many lookups at most; 0: any number
	// ask makes the lookups of one call, of which there are so many; nil: the query alone. One of
	// them has the finding, and then are told the others have none but first.
	ask     func(r *faultRig, q lab.Query)
	lookups int
	misses  bool   // some calls miss the fault, as a race, and are answered without a finding: a tenth at most
	first   string // a finding of the call's first lookup, which comes before the one that is wanted
}

// edns asks for answers of any size.
func edns(q lab.Query) lab.Query {
	q.Message = new(dns.Msg).SetQuestion(q.Name, dns.TypeA).SetEdns0(4096, false)
	return q
}

func drops(place lab.Place, messages lab.Messages) func(*faultRig, string) func() {
	return func(r *faultRig, _ string) func() {
		undo, err := r.DropAt(place, lab.Match{Messages: messages, Leg: lab.ClientLeg})
		return r.may(undo, err)
	}
}

func acts(b lab.Behaviour) func(*faultRig, string) func() {
	return func(r *faultRig, zone string) func() {
		first, second := r.Upstream(0).Set(zone, b), r.Upstream(1).Set(zone, b)
		return func() { first(); second() }
	}
}

// may returns what undoes a fault that could be made.
func (r *faultRig) may(undo func(), err error) func() {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return undo
}

var (
	second = lab.Query{Timeout: time.Second}
	direct = lab.Query{Timeout: time.Second, Server: netip.MustParseAddrPort("192.168.49.10:53")}
	other  = []string{"upstream-unhealthy"}
	stormy = []string{"nxdomain-storm"}
)

var repeatedFaults = []repeated{
	{"silent", func(r *faultRig, zone string) func() { return r.SilentUpstream(0, zone) }, lab.Query{Timeout: 8 * time.Second}, "upstream-timeout", other, more{}},
	{"servfail", acts(lab.Behaviour{Rcode: dns.RcodeServerFailure}), lab.Query{}, "upstream-error", other, more{}},
	{"refused", acts(lab.Behaviour{Rcode: dns.RcodeRefused}), lab.Query{}, "upstream-error", other, more{}},
	{"slow", acts(lab.Behaviour{Delay: 1200 * time.Millisecond}), lab.Query{Timeout: 5 * time.Second}, "slow-upstream", nil, more{}},
	{"query-dropped", drops(lab.NodeForward, lab.Queries), second, "dropped-by-netfilter", nil, more{}},
	{"query-dropped-at-once", drops(lab.ClientOutput("client-a"), lab.Queries), second, "dropped-by-netfilter", nil, more{}},
	{"response-dropped", drops(lab.ServerOutput, lab.Responses), second, "dropped-by-netfilter", nil, more{}},
	{"query-dropped-by-bpf", func(r *faultRig, _ string) func() {
		undo, err := r.DropByProgramAt(lab.CoreDNS)
		return r.may(undo, err)
	}, second, "dropped-by-bpf", nil, more{}},
	{"vanished", func(r *faultRig, _ string) func() {
		undo, err := r.VanishAt(lab.CoreDNS)
		return r.may(undo, err)
	}, second, "query-never-arrived", nil, more{}},
	{"unheard", func(r *faultRig, _ string) func() {
		undo, err := r.VanishAt("client-a")
		return r.may(undo, err)
	}, second, "response-lost", nil, more{}},
	{"untranslated", func(r *faultRig, _ string) func() {
		undo, err := r.UntranslatedReplies()
		return r.may(undo, err)
	}, second, "unexpected-source", nil, more{}},
	{"other-question", acts(lab.Behaviour{Mangle: lab.OtherQuestion}), direct, "response-rejected", nil, more{}},
	{"closed", func(r *faultRig, _ string) func() {
		undo, err := r.NoListener(r.server)
		return r.may(undo, err)
	}, second, "dropped-no-socket", nil, more{}},
	{"gave-up", func(r *faultRig, zone string) func() {
		slow, closed := acts(lab.Behaviour{Delay: 300 * time.Millisecond})(r, zone), r.ClosedClientPort("client-a")
		return func() { slow(); closed() }
	}, lab.Query{}, "client-gave-up", nil, more{}},
	{"mute", acts(lab.Behaviour{Silent: true}), direct, "no-response-seen", nil, more{}},
	{"too-big", func(r *faultRig, zone string) func() {
		small, err := r.SmallerMTU(lab.Node, "cni0", 1280)
		r.may(nil, err)
		untold, err := r.DropTooBig(lab.Node)
		large := acts(lab.Behaviour{Size: 1200})(r, zone)
		return func() { large(); r.may(untold, err)(); small() }
	}, edns(direct), "path-mtu", nil, more{}},
	{"torn", func(r *faultRig, zone string) func() {
		undo, err := r.DropFragments("client-a")
		large := acts(lab.Behaviour{Size: 3000})(r, zone)
		return func() { large(); r.may(undo, err)() }
	}, edns(direct), "path-mtu", nil, more{}},
	{"wrong-mac", func(r *faultRig, _ string) func() {
		undo, err := r.WrongNeighbour(lab.Upstream, "eth0", lab.NodeUplinkV4)
		return r.may(undo, err)
	}, direct, "dropped-other", nil, more{}},
	{"too-large", acts(lab.Behaviour{Size: 900}), direct, "oversized-response", nil, more{}},
	{"cut", acts(lab.Behaviour{Truncated: true}), lab.Query{}, "truncated-not-retried", nil, more{}},
	{"conntrack-full", func(r *faultRig, _ string) func() { return r.may(r.FillConntrack()) }, second, "conntrack-full", nil, more{}},
	{"conntrack-race", func(r *faultRig, zone string) func() { return r.may(r.RaceLostBy(zone, dns.TypeA)) }, second, "conntrack-race", nil,
		more{ask: bothTypes, lookups: 2, misses: true}},
	{"full-socket", fullSocket, second, "dropped-receive-buffer", nil, more{}},
	{"starved", starved, lab.Query{}, "server-overloaded", nil, more{most: 100}}, // who wait at once
	{"rolled-out", func(r *faultRig, _ string) func() {
		old, now := netip.MustParseAddr("10.244.0.77"), r.Host(lab.CoreDNS)
		r.may(nil, r.SetEndpoints(netip.AddrPortFrom(old, 53), netip.AddrPortFrom(now.V6, 53)))
		return func() { r.may(nil, r.SetEndpoints(netip.AddrPortFrom(now.V4, 53), netip.AddrPortFrom(now.V6, 53))) }
	}, lab.Query{Timeout: 4 * time.Second}, "stale-endpoint", nil, more{timeout: "4s"}},
	{"asked-again", acts(lab.Behaviour{Delay: 300 * time.Millisecond}), lab.Query{RetransmitAfter: 100 * time.Millisecond}, "retransmission", nil, more{}}, // at times when it is answered
	{"cached", acts(lab.Behaviour{Rcode: dns.RcodeServerFailure}), lab.Query{}, "cached-failure", other,
		more{ask: twice, lookups: 2, first: "upstream-error"}},
	{"busy", busy, lab.Query{}, "concurrency-limit", nil, more{corefile: oneUpstream("max_concurrent 4\nmax_fails 0\n"), misses: true}},
	{"blocked", noFault, lab.Query{}, "refused-by-server", nil, more{corefile: func(l *lab.Lab) string { return forwarding(l, "acl blocked.test {\nblock\n}") }}},
	{"slow-plugin", noFault, lab.Query{}, "server-slow", nil, more{corefile: func(l *lab.Lab) string {
		return erratic(l, "slow-plugin.test", 700*time.Millisecond) + plainForwarding(l)
	}}},
	{"one-type", acts(lab.Behaviour{Type: dns.TypeAAAA, Silent: true}), lab.Query{Timeout: 8 * time.Second}, "type-ignored", other,
		more{timeout: "3s", ask: bothTypes, lookups: 2, corefile: oneUpstream("")}}, // another, of which nothing is known, times out
	{"contradiction", acts(lab.Behaviour{Type: dns.TypeAAAA, Rcode: dns.RcodeNameError}), lab.Query{}, "inconsistent-answers", stormy,
		more{ask: bothTypes, lookups: 2}},
	{"tcp-after", acts(lab.Behaviour{Truncated: true}), lab.Query{}, "truncated-retry", nil, more{ask: overTCP, lookups: 2}},
	{"searched", noFault, lab.Query{}, "search-path-amplification", stormy,
		more{corefile: clusterForwarding, ask: searching("demo.svc.cluster.local svc.cluster.local cluster.local"), lookups: 8}},
	{"shadowed", func(r *faultRig, _ string) func() {
		searching("demo.svc.cluster.local cluster.local wild.test")(r, lab.Query{Name: "www.first.example."}) // shows the list, and the first name
		return func() {}
	}, lab.Query{}, "search-path-shadowed", nil, more{zone: "shadowed.example.", ask: searching("wild.test cluster.local"), lookups: 2, corefile: func(l *lab.Lab) string {
		return forwarding(l, "template IN A wild.test {\nanswer \"{{ .Name }} 60 IN A 203.0.113.99\"\n}\ntemplate ANY ANY cluster.local {\nrcode NXDOMAIN\n}")
	}}},
	{"looped", noFault, lab.Query{Timeout: 8 * time.Second}, "forwarding-loop", nil, more{timeout: "3s", ask: alone, lookups: 1,
		corefile: func(l *lab.Lab) string { return asking(l, l.Host(lab.CoreDNS).V4.String()) }}},
}

// oneUpstream is a Corefile that forwards to the first upstream alone.
func oneUpstream(options string) func(*lab.Lab) string {
	return func(l *lab.Lab) string {
		return ".:53 {\n" + recording(l) + "\nforward . " + l.Upstream(0).V4().String() + " {\n" + options + "}\n}\n"
	}
}

func noFault(*faultRig, string) func() { return func() {} }

// fullSocket stops the server, and fills its socket with queries of others: 208 KiB hold some 270.
func fullSocket(r *faultRig, _ string) func() {
	r.may(nil, r.server.Signal(syscall.SIGSTOP))
	r.Client("client-b").Bulk(context.Background(), lab.Bulk{Count: 400, Rate: 1e6, InFlight: 400, Query: func(i int) lab.Query {
		return lab.Query{Name: fmt.Sprintf("n%d.before.test.", i), Timeout: 300 * time.Millisecond}
	}})
	return func() { r.may(nil, r.server.Signal(syscall.SIGCONT)) }
}

// starved stops the server for as long as the queries come, and a while.
func starved(r *faultRig, _ string) func() {
	r.may(nil, r.server.Signal(syscall.SIGSTOP))
	woken := make(chan error, 1)
	time.AfterFunc(3*time.Second, func() { woken <- r.server.Signal(syscall.SIGCONT) })
	return func() { r.may(nil, <-woken) }
}

// busy lets queries of others take all that the server may ask at once.
func busy(r *faultRig, _ string) func() {
	r.Upstream(0).Set("held.test.", lab.Behaviour{Silent: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Client("client-b").Bulk(ctx, lab.Bulk{Count: 1e6, Rate: 40, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("n%d.held.test.", i)}
		}})
	}()
	time.Sleep(time.Second)
	return func() { cancel(); <-done }
}

func bothTypes(r *faultRig, q lab.Query) {
	other := q
	other.Type = dns.TypeAAAA
	r.Client("client-a").ExchangeTogether(context.Background(), q, other)
}

func twice(r *faultRig, q lab.Query) {
	alone(r, q)
	alone(r, q)
}

func overTCP(r *faultRig, q lab.Query) {
	alone(r, q)
	q.Network = "tcp"
	alone(r, q)
}

func alone(r *faultRig, q lab.Query) { _, _ = r.Client("client-a").Exchange(context.Background(), q) }

// searching resolves a name with glibc and a search list.
func searching(list string) func(*faultRig, lab.Query) {
	return func(r *faultRig, q lab.Query) {
		r.resolve("client-a", r.glibc, strings.TrimSuffix(q.Name, "."),
			"nameserver "+lab.ServiceV4.Addr().String()+"\nsearch "+list+"\noptions ndots:5 timeout:1 attempts:1\n")
	}
}

// As many lookups as there are meet each fault of the table, and each is told the same, and
// nothing else.
func TestEachFaultHasItsFindingEachTime(t *testing.T) {
	n := 12
	if set := os.Getenv(repeatEnv); set != "" {
		var err error
		if n, err = strconv.Atoi(set); err != nil {
			t.Fatal(err)
		}
	}
	glibc := buildResolver(t, "glibc")
	labs := make(chan bool, 4)
	for _, f := range repeatedFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			labs <- true
			defer func() { <-labs }()
			f.repeat(t, glibc, n)
		})
	}
}

// repeat makes n calls that meet the fault.
func (f *repeated) repeat(t *testing.T, glibc resolver, n int) {
	serving, lookups := plainForwarding, max(f.more.lookups, 1)
	if f.more.corefile != nil {
		serving = f.more.corefile
	}
	if f.more.most > 0 {
		n = min(n, f.more.most)
	}
	timeout := cmp.Or(f.more.timeout, "7s")
	if f.query.Timeout == time.Second {
		timeout = "2s"
	}
	r := newFaultRigInLab(t, serving, "--timeout", timeout)
	r.glibc = glibc
	zone := cmp.Or(f.more.zone, f.name+".test.")
	if f.want != "forwarding-loop" { // of which no name is spared
		r.answered(lab.Query{Name: "healthy.example."})
	}
	undo := f.inject(r, zone)
	query := func(i int) lab.Query {
		q := f.query
		q.Name = fmt.Sprintf("n%d.%s", i, zone)
		if q.Message != nil {
			q.Message = q.Message.Copy()
			q.Message.Question[0].Name = q.Name
		}
		return q
	}
	if f.more.ask == nil {
		r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: n, Rate: 100, InFlight: 100, Query: query})
	} else {
		f.askAll(r, n, query)
	}
	told := r.clientLookups(zone, n*lookups)
	undo()
	calls := map[string][]*trace.Trace{}
	for _, tr := range told {
		name, _, _ := strings.Cut(tr.QName, ".")
		calls[name] = append(calls[name], tr)
	}
	missed := 0
	for _, call := range calls {
		if f.more.misses && spared(call) {
			missed++
			continue
		}
		f.check(t, call)
	}
	if missed > n/10 {
		t.Errorf("%d of %d calls missed the fault", missed, n)
	}
	if t.Failed() {
		r.keep(f.name, zone)
	}
}

// askAll makes n calls, one after the other, or where a query waits for nothing together.
func (f *repeated) askAll(r *faultRig, n int, query func(int) lab.Query) {
	if f.query.Timeout == 0 || f.want == "forwarding-loop" {
		for i := range n {
			f.more.ask(r, query(i))
			time.Sleep(10 * time.Millisecond) // of a loop each is twenty queries
		}
		return
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	for i := range n {
		calls.Go(func() { f.more.ask(r, query(i)) })
		time.Sleep(10 * time.Millisecond)
	}
}

// spared tells whether a call did not meet its fault.
func spared(call []*trace.Trace) bool {
	return !slices.ContainsFunc(call, func(t *trace.Trace) bool {
		return t.Outcome != trace.OutcomeAnswered || t.RCode != "NOERROR" || len(t.Diagnosis) > 0
	})
}

// check wants the lookups of one call to have the finding, once, and no other.
func (f *repeated) check(t *testing.T, call []*trace.Trace) {
	others := append([]string{"server-overloaded", "slow-upstream"}, f.also...) // a busy machine's own
	want := slices.DeleteFunc([]string{f.more.first, f.want}, func(code string) bool { return code == "" })
	slices.SortFunc(call, func(a, b *trace.Trace) int { return a.Time.Compare(b.Time) })
	var got []string
	for _, tr := range call {
		got = append(got, slices.DeleteFunc(findings(tr), func(code string) bool { return code != f.want && slices.Contains(others, code) })...)
	}
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("findings %v, want %v", got, want)
	for _, tr := range call {
		t.Logf("%s %s %s %s, lost %d, %+v", tr.QName, tr.QType, tr.Outcome, tr.RCode, tr.Exchange.LostEvents, tr.Diagnosis)
	}
}

// clientLookups waits for the traces of n lookups of a client below a zone: the last that
// was told of each.
func (r *faultRig) clientLookups(zone string, n int) map[trace.TraceID]*trace.Trace {
	r.t.Helper()
	client := r.Host("client-a").V4
	for end := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		told := map[trace.TraceID]*trace.Trace{}
		for _, tr := range r.allTraces() {
			if strings.Contains(tr.QName, "."+zone) && tr.Exchange != nil && tr.Exchange.ClientIP == client {
				told[tr.TraceID] = tr
			}
		}
		if len(told) >= n {
			return told
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d lookups, expected %d\n%s", len(told), n, r.Outputs())
		}
	}
}
