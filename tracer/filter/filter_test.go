package filter

import (
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dnstrace/dnstrace/trace"
)

func lookup() *trace.Trace {
	attempt := &trace.Attempt{Attempt: 1, Address: "192.0.2.1:53", Outcome: trace.OutcomeTimeout, Duration: trace.SecondsPtr(2 * time.Second)}
	return &trace.Trace{
		Header: trace.Header{V: 1, Record: trace.KindTrace, Time: time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)},
		QName:  "api.example.com.", QType: "A", RCode: "NXDOMAIN", Outcome: trace.OutcomeAnswered,
		Duration: trace.SecondsPtr(2100 * time.Millisecond),
		Client:   &trace.Endpoint{Pod: "mypod", Namespace: "demo"},
		Exchange: &trace.Exchange{
			DNS:        trace.DNS{ClientIP: netip.MustParseAddr("10.244.0.4"), ID: 7},
			Path:       trace.PathOf(trace.Sighting{Device: trace.Device{IfName: "eth0", NetNS: 7}, Direction: trace.DirectionTX}),
			Milestones: trace.Milestones{Query: trace.Progress{Left: trace.MilestoneAt(0), Read: trace.NotObservable}},
			Drops:      []trace.Drop{{Reason: "NO_SOCKET", Message: trace.MessageResponse}},
			Rejected:   []trace.Rejection{{Why: trace.RejectedID}},
		},
		Upstreams: []trace.Upstream{{Attempt: attempt, Join: trace.JoinNone}, {Join: trace.JoinExact}},
		Diagnosis: []trace.Finding{{Code: "upstream-timeout"}},
	}
}

func dropped() *trace.Trace {
	return &trace.Trace{QName: "x.", QType: "A", Outcome: trace.OutcomeDropped}
}

func query() *trace.Query {
	return &trace.Query{
		DNS:   trace.DNS{QName: "api.example.com.", RCode: "NXDOMAIN", DNSSECOK: true, Duration: trace.SecondsPtr(time.Millisecond)},
		Cache: trace.CacheMiss, Upstreams: []trace.Attempt{{Attempt: 1, Outcome: trace.OutcomeOK}},
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		expression             string
		lookup, dropped, query bool
	}{
		{`rcode == "NXDOMAIN" and client.namespace == "demo"`, true, false, false},
		{`rcode == "NXDOMAIN"`, true, false, true},
		{`rcode == nil`, false, true, false},
		{`rcode != "NOERROR"`, true, true, true},
		{`client.namespace == nil`, false, true, true},
		{`duration_seconds > 0.5`, true, false, false},
		{`duration_seconds <= 0.5`, false, false, true},
		{`not (duration_seconds > 0.5)`, false, true, true},
		{`duration_seconds * 1000 > 500`, true, false, false},
		{`len(diagnosis) > 0`, true, false, false},
		{`len(diagnosis) == 0`, false, true, true},
		{`any(diagnosis, .code == "upstream-timeout")`, true, false, false},
		{`any(upstreams, .join == "none")`, true, false, false},
		{`all(upstreams, .join == "exact")`, false, true, false},
		{`any(upstreams, .attempt.outcome == "timeout")`, true, false, false},
		{`any(upstreams, .outcome == "ok")`, false, false, true},
		{`count(upstreams, .join != nil) == 2`, true, false, false},
		{`outcome == "dropped"`, false, true, false},
		{`outcome in ["dropped", "unanswered"]`, false, true, false},
		{`cache == "miss"`, false, false, true},
		{`dnssec_ok`, false, false, true},
		{`dnssec_ok and cache == "miss"`, false, false, true},
		{`not dnssec_ok`, true, true, false},
		{`exchange.client_ip == "10.244.0.4"`, true, false, false},
		{`exchange.id == 7`, true, false, false},
		{`any(exchange.path, .ifname == "eth0" and .direction == "tx")`, true, false, false},
		{`any(exchange.path, .netns == 7 and .node == nil)`, true, false, false},
		{`any(exchange.drops, .reason == "NETFILTER_DROP")`, false, false, false},
		{`any(exchange.drops, .reason == "NO_SOCKET")`, true, false, false},
		{`any(exchange.rejected, .why == "id")`, true, false, false},
		{`exchange.milestones.query.left == 0`, true, false, false},
		{`exchange.milestones.query.read == "not_observable"`, true, false, false},
		{`exchange != nil and exchange.milestones.response.arrived == nil`, true, false, false},
		{`role == nil`, true, true, true},
		{`client?.pod startsWith "my"`, true, false, false},
		{`qname endsWith ".example.com."`, true, false, true},
		{`qname matches "^api"`, true, false, true},
		{`client.pod matches "^my"`, true, false, false},
		{`time > date("2026-01-01T00:00:00Z")`, true, false, false},
		{`upstreams[0].join == "none"`, true, false, false},
	} {
		f, err := Compile(tc.expression)
		if err != nil {
			t.Errorf("%s: %v", tc.expression, err)
			continue
		}
		for _, r := range []struct {
			name   string
			record trace.Record
			want   bool
		}{{"lookup", lookup(), tc.lookup}, {"dropped", dropped(), tc.dropped}, {"query", query(), tc.query}} {
			got, err := f.Match(r.record)
			if err != nil || got != r.want {
				t.Errorf("%s on %s: got %v, %v; want %v", tc.expression, r.name, got, err, r.want)
			}
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, tc := range []struct{ expression, want string }{
		{``, "the filter is empty"},
		{`rcod == "NXDOMAIN"`, "column 1: unknown name rcod; did you mean rcode?"},
		{`rcode == NXDOMAIN`, `column 10: unknown name NXDOMAIN; a string needs quotes: "NXDOMAIN"`},
		{`latencymillis > 5`, "a record has: answer_count answered_by answers bufsize cache"},
		{`client.namspace == "demo"`, "unknown field namspace; did you mean namespace?"},
		{`any(upstreams, .joni == "none")`, "unknown field joni; did you mean join?"},
		{`exchange.zzzzzz == 1`, "unknown field zzzzzz; `-o json` shows"},
		{`rcode > 5`, "column "},
		{`rcode`, "expression gives a string, expected true or false"},
		{`"x"`, "expression gives a string, expected true or false"},
		{`rcode ==`, "column "},
	} {
		_, err := Compile(tc.expression)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.expression, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than one line: %v", tc.expression, err)
		}
	}
}

// What an expression sees is what the JSON shows.
func TestEnvironmentIsTheJSON(t *testing.T) {
	all := map[string]bool{}
	for name := range schema.fields {
		all[name] = true
	}
	for _, r := range append(samples(), lookup(), dropped(), query()) {
		var want map[string]any
		line := r.AppendJSON(nil)
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(environment(r, all, &budget{left: maxSteps}))
		if err != nil {
			t.Fatal(err)
		}
		var env map[string]any
		if err := json.Unmarshal(encoded, &env); err != nil {
			t.Fatal(err)
		}
		normalise(want)
		normalise(env)
		for name, w := range want {
			if !reflect.DeepEqual(env[name], w) {
				t.Errorf("%s.%s: the filter sees %v, the JSON has %v", r.Kind(), name, env[name], w)
			}
		}
	}
}

// normalise removes what is absent: the encoder leaves out most of it, and what a sighting
// has in common with the one before.
func normalise(v any) {
	switch v := v.(type) {
	case map[string]any:
		// The encoder writes these whatever they are; times differ in digits.
		for _, name := range []string{"v", "record", "time"} {
			delete(v, name)
		}
		if path, ok := v["path"].([]any); ok {
			expand(path, v["node"])
		}
		for name, x := range v {
			normalise(x)
			if isAbsent(x) {
				delete(v, name)
			}
		}
	case []any:
		for _, x := range v {
			normalise(x)
		}
	}
}

func isAbsent(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return v == nil || reflect.ValueOf(v).IsZero()
}

// expand gives every sighting of a path all its members.
func expand(path []any, node any) {
	before := map[string]any{"node": node}
	for _, s := range path {
		s := s.(map[string]any)
		for name, x := range before {
			if _, has := s[name]; !has && name != "vlan" && name != "tunnel" {
				s[name] = x
			}
		}
		before = maps.Clone(s)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`rcode == "NXDOMAIN" and client.namespace == "demo"`)
	f.Add(`any(upstreams, .join == "none") or not dnssec_ok`)
	f.Add(`len(diagnosis) + 1 > duration_seconds / 0`)
	f.Fuzz(func(t *testing.T, expression string) {
		c, err := Compile(expression)
		if err != nil {
			return
		}
		for _, r := range []trace.Record{lookup(), dropped(), query()} {
			// Any answer will do; a panic will not.
			_, _ = c.Match(r)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, expression := range []string{
		`rcode == "NXDOMAIN" and client.namespace == "demo"`, `any(exchange.path, .ifname == "eth0")`,
		`all(1..100, all(1..100, # > 0 and # < 1000))`, // what a step takes
	} {
		b.Run(expression, func(b *testing.B) {
			f, err := Compile(expression)
			if err != nil {
				b.Fatal(err)
			}
			r := lookup()
			b.ReportAllocs()
			steps, records := 0, 0
			for b.Loop() {
				spent := &budget{left: maxSteps}
				if _, err := f.run(r, spent); err != nil {
					b.Fatal(err)
				}
				steps += maxSteps - spent.left
				records++
			}
			b.ReportMetric(float64(steps)/float64(records), "steps/op")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/step")
		})
	}
}
