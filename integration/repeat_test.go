package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
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
)

var repeatedFaults = []repeated{
	{"silent", func(r *faultRig, zone string) func() { return r.SilentUpstream(0, zone) }, lab.Query{Timeout: 8 * time.Second}, "upstream-timeout", other},
	{"servfail", acts(lab.Behaviour{Rcode: dns.RcodeServerFailure}), lab.Query{}, "upstream-error", other},
	{"refused", acts(lab.Behaviour{Rcode: dns.RcodeRefused}), lab.Query{}, "upstream-error", other},
	{"slow", acts(lab.Behaviour{Delay: 1200 * time.Millisecond}), lab.Query{Timeout: 5 * time.Second}, "slow-upstream", nil},
	{"query-dropped", drops(lab.NodeForward, lab.Queries), second, "dropped-by-netfilter", nil},
	{"query-dropped-at-once", drops(lab.ClientOutput("client-a"), lab.Queries), second, "dropped-by-netfilter", nil},
	{"response-dropped", drops(lab.ServerOutput, lab.Responses), second, "dropped-by-netfilter", nil},
	{"query-dropped-by-bpf", func(r *faultRig, _ string) func() {
		undo, err := r.DropByProgramAt(lab.CoreDNS)
		return r.may(undo, err)
	}, second, "dropped-by-bpf", nil},
	{"vanished", func(r *faultRig, _ string) func() {
		undo, err := r.VanishAt(lab.CoreDNS)
		return r.may(undo, err)
	}, second, "query-never-arrived", nil},
	{"unheard", func(r *faultRig, _ string) func() {
		undo, err := r.VanishAt("client-a")
		return r.may(undo, err)
	}, second, "response-lost", nil},
	{"untranslated", func(r *faultRig, _ string) func() {
		undo, err := r.UntranslatedReplies()
		return r.may(undo, err)
	}, second, "unexpected-source", nil},
	{"other-question", acts(lab.Behaviour{Mangle: lab.OtherQuestion}), direct, "response-rejected", nil},
	{"closed", func(r *faultRig, _ string) func() {
		undo, err := r.NoListener(r.server)
		return r.may(undo, err)
	}, second, "dropped-no-socket", nil},
	{"gave-up", func(r *faultRig, zone string) func() {
		slow, closed := acts(lab.Behaviour{Delay: 300 * time.Millisecond})(r, zone), r.ClosedClientPort("client-a")
		return func() { slow(); closed() }
	}, lab.Query{}, "client-gave-up", nil},
	{"mute", acts(lab.Behaviour{Silent: true}), direct, "no-response-seen", nil},
	{"too-big", func(r *faultRig, zone string) func() {
		small, err := r.SmallerMTU(lab.Node, "cni0", 1280)
		r.may(nil, err)
		untold, err := r.DropTooBig(lab.Node)
		large := acts(lab.Behaviour{Size: 1200})(r, zone)
		return func() { large(); r.may(untold, err)(); small() }
	}, edns(direct), "path-mtu", nil},
	{"torn", func(r *faultRig, zone string) func() {
		undo, err := r.DropFragments("client-a")
		large := acts(lab.Behaviour{Size: 3000})(r, zone)
		return func() { large(); r.may(undo, err)() }
	}, edns(direct), "path-mtu", nil},
	{"wrong-mac", func(r *faultRig, _ string) func() {
		undo, err := r.WrongNeighbour(lab.Upstream, "eth0", lab.NodeUplinkV4)
		return r.may(undo, err)
	}, direct, "dropped-other", nil},
	{"too-large", acts(lab.Behaviour{Size: 900}), direct, "oversized-response", nil},
	{"cut", acts(lab.Behaviour{Truncated: true}), lab.Query{}, "truncated-not-retried", nil},
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
	labs := make(chan bool, 4)
	for _, f := range repeatedFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			labs <- true
			defer func() { <-labs }()
			f.repeat(t, n)
		})
	}
}

// repeat makes n lookups that meet the fault.
func (f *repeated) repeat(t *testing.T, n int) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "7s")
	zone := f.name + ".test."
	r.answered(lab.Query{Name: "healthy.example."})
	undo := f.inject(r, zone)
	r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: n, Rate: 100, InFlight: 100, Query: func(i int) lab.Query {
		q := f.query
		q.Name = fmt.Sprintf("n%d.%s", i, zone)
		if q.Message != nil {
			q.Message = q.Message.Copy()
			q.Message.Question[0].Name = q.Name
		}
		return q
	}})
	told := r.clientLookups(zone, n)
	undo()
	spared := append([]string{"server-overloaded", "slow-upstream"}, f.also...) // a busy machine's own
	for _, tr := range told {
		got := slices.DeleteFunc(findings(tr), func(code string) bool { return code != f.want && slices.Contains(spared, code) })
		if !slices.Equal(got, []string{f.want}) {
			t.Errorf("%s: %s %s, lost %d, %+v, want %s", tr.QName, tr.Outcome, tr.RCode, tr.Exchange.LostEvents, tr.Diagnosis, f.want)
		}
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
			if strings.HasSuffix(tr.QName, zone) && tr.Exchange != nil && tr.Exchange.ClientIP == client {
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
