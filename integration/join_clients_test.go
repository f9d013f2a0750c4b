package integration

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Fifty clients ask for one name at once, and the server stamps nothing: each lookup has
// one upstream exchange, which is nobody else's and happened within it; what is only
// inferred says so (that what is exact is right, TestJoinAmongFiftyIsTrue asks the
// upstream).
func TestJoinNoGuessAmongFifty(t *testing.T) {
	const clients = 50
	r := newFaultRig(t, func(l *lab.Lab) string {
		return fmt.Sprintf(". {\n %s\n forward . %s\n}\n", recording(l), l.Upstream(0).V4())
	})
	r.Upstream(0).Set("same.test.", lab.Behaviour{Delay: 20 * time.Millisecond})
	for _, res := range r.Client("client-a").Bulk(t.Context(), lab.Bulk{Count: clients, Rate: 1e6, Query: func(int) lab.Query {
		return lab.Query{Name: "same.test."}
	}}) {
		if res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	traces := r.settled("same.test", clients)
	taken := map[trace.Flow]bool{}
	roots, exact, inferred := 0, 0, 0
	for _, tr := range traces {
		if tr.Query == nil {
			t.Errorf("%s has no record: %v", tr.Flow, tr.Gaps)
			continue
		}
		roots++
		for _, u := range tr.Upstreams {
			switch {
			case u.Exchange == nil:
				at := tr.Query.Time.Add(u.Attempt.Start.Duration())
				t.Errorf("attempt from %s to %s: join %s: %v", at, at.Add(u.Attempt.Duration.Duration()), u.Join, tr.Gaps)
				continue
			case taken[u.Exchange.Flow]:
				t.Errorf("one upstream exchange in two traces")
			case u.Join == trace.JoinExact:
				exact++
			case len(tr.Gaps) == 0:
				t.Errorf("join %s without a word: %+v", u.Join, tr)
			default:
				inferred++
			}
			taken[u.Exchange.Flow] = true
			checkNested(t, tr, &u)
		}
	}
	t.Logf("%d lookups, %d joined exactly, %d inferred", roots, exact, inferred)
	if roots != clients {
		t.Errorf("%d lookups, expected %d", roots, clients)
	}
}

// checkNested wants the exchange within the attempt that it is said to be.
func checkNested(t *testing.T, tr *trace.Trace, u *trace.Upstream) {
	t.Helper()
	const slack = time.Millisecond
	begin := tr.Query.Time.Add(u.Attempt.Start.Duration())
	over := begin.Add(u.Attempt.Duration.Duration())
	ex := u.Exchange
	if ex.Time.Before(begin.Add(-slack)) || ex.Time.Add(ex.Duration.Duration()).After(over.Add(slack)) {
		t.Errorf("exchange from %s for %s in an attempt from %s to %s", ex.Time, ex.Duration.Duration(), begin, over)
	}
}

// A client whose address the node translates, as kube-proxy does with
// --masquerade-all, and one with the node's own address: the server sees another
// client, and the trace is complete.
func TestJoinTranslatedClients(t *testing.T) {
	r := newFaultRig(t, plainForwarding)
	if _, err := r.MasqueradeService(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ client, name, network string }{
		{"client-a", "snat.test.", "udp"}, {"client-b", "snat-tcp.test.", "tcp"}, {lab.Node, "host.test.", "udp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, err := r.Client(tc.client).Exchange(t.Context(), lab.Query{Name: tc.name, Network: tc.network})
			if err != nil {
				t.Fatal(err)
			}
			tr := r.trace(tc.name)
			if tr.Exchange == nil || tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact {
				t.Fatalf("exchange %t, query %t, upstreams %+v; gaps %v", tr.Exchange != nil, tr.Query != nil, tr.Upstreams, tr.Gaps)
			}
			ex := tr.Exchange
			if got := netip.AddrPortFrom(ex.ClientIP, ex.ClientPort); got != res.Local {
				t.Errorf("client %s, expected %s", got, res.Local)
			}
			if tr.Query.ClientIP == res.Local.Addr() && tc.client != lab.Node {
				t.Error("the client was not translated: the test proves nothing")
			}
			if len(tr.Diagnosis) != 0 || len(tr.Gaps) != 0 {
				t.Errorf("findings %v, gaps %v", findings(tr), tr.Gaps)
			}
		})
	}
}

// What the cache fetches in the background is a trace that says so, with its
// upstream exchange, under the trace id of the lookup that set it off.
func TestJoinRefresh(t *testing.T) {
	for cause, cache := range map[string]string{"prefetch": "prefetch 1 1m 90%", "stale": "serve_stale 1h immediate"} {
		t.Run(cause, func(t *testing.T) {
			r := newFaultRig(t, func(l *lab.Lab) string {
				return fmt.Sprintf(". {\n %s\n cache {\n  success 100 3600 1\n  %s\n }\n forward . %s\n}\n", recording(l), cache, l.Upstream(0).V4())
			})
			name := cause + ".test."
			// Of a TTL of nine seconds 90 % are nine (the cache rounds up): every hit before
			// its end prefetches. Of two seconds nothing is left after three.
			ttl, wait := uint32(9), 100*time.Millisecond
			if cause == "stale" {
				ttl, wait = 2, 3100*time.Millisecond
			}
			r.Upstream(0).Set(name, lab.Behaviour{TTL: ttl})
			r.answered(lab.Query{Name: name})
			time.Sleep(wait)
			r.answered(lab.Query{Name: name})
			var refresh, lookup *trace.Trace
			for _, tr := range r.settledAll(name, 3) {
				switch {
				case tr.Exchange == nil && tr.Query == nil:
					refresh = tr
				case tr.Query != nil && tr.Query.Cache != trace.CacheMiss:
					lookup = tr
				case tr.Query == nil:
					t.Errorf("an upstream exchange that is nobody's: %+v", tr.Exchange)
				}
			}
			if refresh == nil || lookup == nil {
				t.Fatalf("refresh %t, lookup %t", refresh != nil, lookup != nil)
			}
			if refresh.TraceID != lookup.TraceID || len(refresh.Upstreams) != 1 || refresh.Upstreams[0].Join != trace.JoinExact || len(refresh.Gaps) != 1 {
				t.Errorf("trace id %s, expected %s; upstreams %+v; gaps %v", refresh.TraceID, lookup.TraceID, refresh.Upstreams, refresh.Gaps)
			}
			if len(lookup.Upstreams) != 0 {
				t.Errorf("the lookup has %d upstreams", len(lookup.Upstreams))
			}
			r.keep("refresh-"+cause, name)
		})
	}
}

// settledAll waits for at least n traces of a name, of whatever kind.
func (r *faultRig) settledAll(name string, n int) []*trace.Trace {
	r.t.Helper()
	r.traces(name, n)
	time.Sleep(2 * time.Second)
	return r.traces(name, n)
}
