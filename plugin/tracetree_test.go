package dnstrace

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/go-json-experiment/json"
	"github.com/miekg/dns"
)

// zipkinSpan is a span as the trace plugin reports it.
type zipkinSpan struct {
	TraceID   string `json:"traceId"`
	ID        string `json:"id"`
	ParentID  string `json:"parentId"`
	Name      string `json:"name"`
	Timestamp int64  `json:"timestamp"` // microseconds
}

// zipkin is a collector for the trace plugin.
type zipkin struct {
	url string

	mu    sync.Mutex
	spans []zipkinSpan
}

func newZipkin(t *testing.T) *zipkin {
	z := new(zipkin)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []zipkinSpan
		if err := json.UnmarshalRead(r.Body, &batch); err != nil {
			t.Error(err)
		}
		z.mu.Lock()
		z.spans = append(z.spans, batch...)
		z.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	z.url = server.URL + "/api/v2/spans"
	return z
}

// directive makes the trace plugin report every span at once.
func (z *zipkin) directive(every string) string {
	return "trace zipkin " + z.url + " {\n every " + every + "\n zipkin_max_batch_size 1\n}"
}

// trees returns a line for each trace, "name(child child(grandchild))", in order
// of start; a span whose parent is missing is under "?".
func (z *zipkin) trees() string {
	z.mu.Lock()
	spans := slices.Clone(z.spans)
	z.mu.Unlock()
	slices.SortStableFunc(spans, func(a, b zipkinSpan) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	children := make(map[string][]zipkinSpan)
	known := make(map[string]bool)
	for _, s := range spans {
		known[s.TraceID+s.ID] = true
		children[s.TraceID+s.ParentID] = append(children[s.TraceID+s.ParentID], s)
	}
	var show func(s zipkinSpan) string
	show = func(s zipkinSpan) string {
		var below []string
		for _, c := range children[s.TraceID+s.ID] {
			below = append(below, show(c))
		}
		if len(below) == 0 {
			return s.Name
		}
		return s.Name + "(" + strings.Join(below, " ") + ")"
	}
	var all []string
	for _, s := range spans {
		switch {
		case s.ParentID == "":
			all = append(all, show(s))
		case !known[s.TraceID+s.ParentID]:
			all = append(all, "?("+show(s)+")")
		}
	}
	return strings.Join(all, "\n")
}

// check waits until the traces are those wanted.
func (z *zipkin) check(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); z.trees() != want && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := z.trees(); got != want {
		t.Errorf("zipkin has\n%s\nwant\n%s", got, want)
	}
}

// With the trace plugin, both see the whole way: nothing of its tree is lost or
// hangs elsewhere, and the record has all its hops and attempts. With dnstrace
// there are more spans in it: of dnstrace itself, and of the attempts of a grpc that is not patched.
func TestTraceTrees(t *testing.T) {
	noIPv6 := upstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Qtype == dns.TypeA {
			answerA(w, r)
			return
		}
		answerRcode(dns.RcodeSuccess)(w, r)
	})
	back, trust := secureUpstream(t, "grpc://")
	down := refusing(t)
	for _, tc := range []struct {
		name, plugins string
		qtype         uint16
		without, with string // the spans below the trace plugin's first
		hops          string
		attempts      string
	}{
		{
			"grpc", "grpc . " + back.addr + " {\n" + trust + "\n}", dns.TypeA,
			reported("grpc(query)", "grpc"), "dnstrace(grpc(query))",
			"grpc", "1 ok " + back.addr,
		},
		{
			"grpc failover", "grpc . " + down + " " + back.addr + " {\n policy sequential\n" + trust + "\n}", dns.TypeA,
			reported("grpc(query query)", "grpc"), "dnstrace(grpc(query query))",
			"grpc", "1 error " + down + ", 2 ok " + back.addr,
		},
		{
			"cache and grpc", "cache\n grpc . " + back.addr + " {\n" + trust + "\n}", dns.TypeA,
			reported("cache(grpc(query))", "cache(grpc)"), "dnstrace(cache(grpc(query)))",
			"cache grpc<cache", "1 ok " + back.addr,
		},
		{
			"dns64", "dns64 {\n allow_ipv4\n}\n cache\n forward . " + noIPv6, dns.TypeAAAA,
			"dns64(forward(connect) dns64(cache(forward(connect))))",
			"dnstrace(dns64(forward(connect) dnstrace(dns64(cache(forward(connect))))))",
			"dns64 cache<dns64 forward<cache dnstrace<dns64 dns64<dnstrace cache<dns64 forward<cache",
			"1 ok " + noIPv6 + ", 2 ok " + noIPv6,
		},
		{
			"dns64 before forward", "dns64 {\n allow_ipv4\n}\n forward . " + down + " " + noIPv6 + " {\n policy sequential\n max_fails 0\n}", dns.TypeAAAA,
			"dns64(connect connect dns64(forward(connect connect)))",
			"dnstrace(dns64(connect connect dnstrace(dns64(forward(connect connect)))))",
			"dns64 forward<dns64 dnstrace<dns64 dns64<dnstrace forward<dns64",
			"1 error " + down + ", 2 ok " + noIPv6 + ", 3 error " + down + ", 4 ok " + noIPv6,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			z := newZipkin(t)
			s := start(t, ".:0 {\n bind 127.0.0.1\n"+z.directive("1")+"\n"+tc.plugins+"\n}")
			plain := s.ask("example.org.", tc.qtype)
			z.check(t, "servedns("+tc.without+")")
			s.stop()

			z = newZipkin(t)
			s = start(t, ".:0 {\n bind 127.0.0.1\n"+z.directive("1")+"\n dnstrace {\n output file $RECORDS\n}\n"+tc.plugins+"\n}")
			answer := s.ask("example.org.", tc.qtype)
			q := s.query(1)
			z.check(t, "servedns("+tc.with+")")
			if hops(q.Hops) != tc.hops || attempts(q.Upstreams) != tc.attempts {
				t.Errorf("hops %s, attempts %s", hops(q.Hops), attempts(q.Upstreams))
			}
			if len(answer.Answer) != 1 || answer.Answer[0].String() != plain.Answer[0].String() {
				t.Errorf("the answer is\n%s\nwithout dnstrace\n%s", answer, plain)
			}
			checkTimes(t, q)
		})
	}
}

// Which queries the trace plugin takes and which dnstrace records are choices of
// their own.
func TestTraceChoices(t *testing.T) {
	up := upstream(t, answerA)
	z := newZipkin(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		`+z.directive("2")+`
		dnstrace example.org {
			output file $RECORDS
			stamp all
		}
		forward . `+up+`
	}`)
	recorded := 0
	for n, name := range []string{"a.example.org.", "b.example.org.", "a.example.net.", "b.example.net."} {
		s.ask(name, dns.TypeA)
		if n < 2 {
			recorded++
			q := s.query(recorded)
			if hops(q.Hops) != "forward" || attempts(q.Upstreams) != "1 ok "+up || q.QName != name || !q.Stamped {
				t.Errorf("%s: stamped %t, hops %s, attempts %s", q.QName, q.Stamped, hops(q.Hops), attempts(q.Upstreams))
			}
		}
	}
	z.check(t, "servedns(dnstrace(forward(connect)))\nservedns(dnstrace(forward(connect)))")
	s.stop()
	s.wait(recorded)
}

// A refresh goes on after its query: the trace plugin has it in the query's
// trace, and dnstrace in a record of its own.
func TestTraceOfRefresh(t *testing.T) {
	for _, tc := range []struct {
		directive, want string
	}{
		{"", "servedns(cache(forward(connect)))\nservedns(cache(forward(connect)))"},
		{"dnstrace {\n output file $RECORDS\n}", "servedns(dnstrace(cache(forward(connect))))\nservedns(dnstrace(cache(forward(connect))))"},
	} {
		a := &aging{delay: 50 * time.Millisecond}
		z := newZipkin(t)
		s := start(t, `.:0 {
			bind 127.0.0.1
			`+z.directive("1")+`
			`+tc.directive+`
			cache {
				success 100 3600 1
				prefetch 1 1m 90%
			}
			forward . `+upstream(t, a.serve)+`
		}`)
		s.ask("example.org.", dns.TypeA)
		s.ask("example.org.", dns.TypeA) // a hit, and its TTL is all but over
		z.check(t, tc.want)
		if tc.directive == "" {
			continue
		}
		queries, refreshes := split(s.wait(3))
		// The order of records is that of their ends.
		slices.SortFunc(queries, func(a, b *trace.Query) int { return a.Time.Compare(b.Time) })
		if len(queries) != 2 || len(refreshes) != 1 || hops(refreshes[0].Hops) != "forward" || len(refreshes[0].Upstreams) != 1 ||
			refreshes[0].TraceID != queries[1].TraceID || hops(queries[1].Hops) != "cache" {
			t.Errorf("queries %+v, refreshes %+v", queries, refreshes)
		}
	}
}
