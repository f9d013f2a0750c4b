package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/history"
)

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

// recorded returns the exchange and the query record of one lookup through a
// Service.
func recorded(n int, name string) (*trace.Exchange, *trace.Query) {
	client := netip.MustParseAddrPort("10.244.0.4:50202")
	service, server := netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.244.0.2:53")
	at := start.Add(time.Duration(n) * time.Second)
	flow := trace.NewFlow(trace.TransportUDP, client, uint16(n), 1, 1, []byte("\x01"+name[:1]+"\x00"))
	head := trace.Header{V: trace.Version, Record: trace.KindExchange, Time: at, TraceID: trace.NewTraceID(at, flow), Flow: flow}
	dns := trace.DNS{ClientIP: client.Addr(), ClientPort: client.Port(), QName: name, QType: "A", QClass: "IN", Protocol: "udp",
		ID: uint16(n), BufSize: 512, RCode: "NOERROR", Duration: trace.SecondsPtr(time.Millisecond)}
	sighting := func(us int, message, direction, netns string, inode uint32, src, dst netip.AddrPort) trace.Sighting {
		where := trace.Device{NetNS: inode, NetNSName: netns, IfIndex: 2, IfName: "eth0"}
		return trace.Sighting{Offset: trace.Seconds(us * 1000), Message: message, Device: where, Direction: direction, Src: src, Dst: dst}
	}
	port := server.Port()
	e := &trace.Exchange{
		Header: head, DNS: dns, ServerIP: service.Addr(), ServerPort: service.Port(), Outcome: trace.OutcomeAnswered, Transmissions: 1,
		NAT: &trace.NAT{ServerIP: server.Addr(), ServerPort: &port, Source: trace.NATConntrack},
		Path: trace.PathOf(
			sighting(0, "query", "tx", "pod", 1, client, service), sighting(90, "query", "rx", "coredns", 2, client, server),
			sighting(900, "response", "tx", "coredns", 2, server, client), sighting(1000, "response", "rx", "pod", 1, service, client),
		),
		Milestones: trace.Milestones{
			Query:    trace.Progress{Left: trace.MilestoneAt(0), Arrived: trace.MilestoneAt(1), Read: trace.NotObservable},
			Response: trace.Progress{Left: trace.MilestoneAt(2), Arrived: trace.MilestoneAt(3), Read: trace.NotObservable},
		},
		Client: &trace.Endpoint{Pod: "mypod", Namespace: "demo"},
	}
	head.Record, head.Time = trace.KindQuery, at.Add(100*time.Microsecond)
	dns.Duration = trace.SecondsPtr(790 * time.Microsecond)
	q := &trace.Query{Header: head, DNS: dns, ServerIP: server.Addr(), ServerPort: server.Port(), Zone: ".", Cache: trace.CacheHit,
		AnsweredBy: "cache", Outcome: trace.OutcomeAnswered, Hops: []trace.Hop{{Plugin: "cache", Start: 1000, Duration: trace.SecondsPtr(780 * time.Microsecond)}}}
	return e, q
}

// records is a file of three lookups, as `run` and the plugin write them, with a
// line that is no record.
func records(t *testing.T) string {
	t.Helper()
	var b []byte
	for n, name := range []string{"api.example.com.", "www.example.com.", "example.org."} {
		e, q := recorded(n, name)
		b = append(q.AppendJSON(b), '\n')
		b = append(e.AppendJSON(b), '\n')
	}
	b = append(b, "[INFO] plugin/reload\n"...)
	path := filepath.Join(t.TempDir(), "records.jsonl")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// call runs one command line.
func call(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = execute(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return status, out.String(), err.String()
}

func TestExplain(t *testing.T) {
	path := records(t)
	for _, tc := range []struct {
		args []string
		want []string // the first lines of the waterfalls, in order
		more string
	}{
		{nil, []string{"example.org."}, "2 earlier lookups match too"},
		{[]string{"api.example.com"}, []string{"api.example.com."}, ""},
		{[]string{"*.example.com"}, []string{"www.example.com."}, "1 earlier lookup matches too"},
		{[]string{"*.example.com", "--all"}, []string{"www.example.com.", "api.example.com."}, ""},
		{[]string{"demo/mypod", "--limit", "2"}, []string{"example.org.", "www.example.com."}, "1 earlier"},
		{[]string{"10.244.0.4", "-f", `qname startsWith "api"`}, []string{"api.example.com."}, ""},
	} {
		status, out, stderr := call(t, "", append([]string{"explain", "--from", path}, tc.args...)...)
		var got []string
		for line := range strings.Lines(out) {
			if name, _, found := strings.Cut(line, " A  NOERROR in 1.00 ms"); found {
				got = append(got, name)
			}
		}
		if status != exitOK || strings.Join(got, " ") != strings.Join(tc.want, " ") {
			t.Errorf("%q: status %d, %q, want %q\n%s", tc.args, status, got, tc.want, stderr)
		}
		if !strings.Contains(stderr, "line 7: not a dnstrace record") || !strings.Contains(stderr, tc.more) || tc.more == "" && strings.Contains(stderr, "match too") {
			t.Errorf("%q: %s", tc.args, stderr)
		}
	}
}

func TestExplainDrawsBothHalves(t *testing.T) {
	_, out, _ := call(t, "", "explain", "--from", records(t), "api.example.com.")
	for _, want := range []string{"demo/mypod", "Service 10.96.0.10:53 → 10.244.0.2:53 (DNAT)", "COREDNS cache hit", "RESPONSE to the client", "DIAGNOSIS: nothing wrong"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

func TestJSONIsUnchanged(t *testing.T) {
	e, q := recorded(1, "api.example.com.")
	tr := &trace.Trace{Header: e.Header, QName: e.QName, QType: "A", Outcome: e.Outcome, Exchange: e, Query: q}
	tr.Record = trace.KindTrace
	line := string(tr.AppendJSON(nil)) + "\n"
	// As another encoder would write it.
	line = strings.Replace(line, `{"v":1,`, `{ "v": 1, `, 1)
	for _, args := range [][]string{{"watch"}, {"explain"}, {"explain", "--all"}} {
		status, out, stderr := call(t, line, append(args, "--from", "-", "-o", "json")...)
		if status != exitOK || out != line || stderr != "" {
			t.Errorf("%q: status %d\n got %s\nwant %s\n%s", args, status, out, line, stderr)
		}
	}
}

func TestWatch(t *testing.T) {
	status, out, _ := call(t, "", "watch", "--from", records(t), "-f", `qname endsWith ".com."`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != exitOK || len(lines) != 3 || !strings.HasPrefix(lines[0], "TIME") || !strings.Contains(lines[1], "api.example.com.") {
		t.Errorf("status %d\n%s", status, out)
	}
}

// follower stops once it has been shown a lookup.
type follower struct {
	out  bytes.Buffer
	stop func()
}

func (f *follower) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("api.example.com.")) {
		f.stop()
	}
	return f.out.Write(b)
}

// serving is the API of a tracer that keeps one lookup.
func serving(t *testing.T) (socket string) {
	t.Helper()
	h := history.New(history.Config{Keep: time.Hour, MaxBytes: 1 << 20})
	e, _ := recorded(1, "api.example.com.")
	kept := &trace.Trace{Header: e.Header, QName: e.QName, Exchange: e, Outcome: e.Outcome}
	h.Add(time.Now(), history.Lookup{Line: kept.AppendJSON(nil)})
	socket = filepath.Join(t.TempDir(), "api.sock")
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, api.NewHandler(api.Config{History: h})) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func TestWatchFollowsUntilStopped(t *testing.T) {
	socket := serving(t)
	for _, format := range []string{"table", "json"} {
		ctx, stop := context.WithCancel(t.Context())
		out := &follower{stop: stop}
		var stderr bytes.Buffer
		status := execute(ctx, []string{"watch", "--api", socket, "--since", "1h", "-o", format}, nil, out, &stderr)
		if status != exitOK || !strings.Contains(out.out.String(), "api.example.com.") || stderr.Len() > 0 {
			t.Errorf("%s: status %d, %s, %s", format, status, &out.out, &stderr)
		}
		stop()
	}
}

// With --once nobody has to stop it: what it prints can be counted by a pipe.
func TestWatchOnce(t *testing.T) {
	socket := serving(t)
	for _, args := range [][]string{{"-o", "json"}, {"--since", "1h"}, {}} {
		status, out, stderr := call(t, "", append([]string{"watch", "--once", "--api", socket}, args...)...)
		if status != exitOK || strings.Count(out, "api.example.com.") == 0 || stderr != "" {
			t.Errorf("%q: status %d, %s, %s", args, status, out, stderr)
		}
	}
	if status, out, stderr := call(t, "", "watch", "--once", "--api", socket, "-f", `qname == "none."`); status != exitOK || out != "" || stderr != "" {
		t.Errorf("status %d, %s, %s", status, out, stderr)
	}
}

// What there is comes in the order in which it began, and what was reported again once.
func TestWatchOnceIsInOrderOfStart(t *testing.T) {
	var lines []byte
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	add := func(second int, name string, replaces bool) {
		e, _ := recorded(1, name)
		e.Time = began.Add(time.Duration(second) * time.Second)
		e.TraceID = trace.NewTraceID(e.Time, e.Flow)
		tr := &trace.Trace{Header: e.Header, QName: name, Exchange: e, Outcome: e.Outcome, Replaces: replaces}
		lines = append(tr.AppendJSON(lines), '\n')
	}
	add(3, "third.example.", false)
	add(1, "first.example.", false)
	add(2, "second.example.", false)
	add(1, "first.example.", true)
	for _, args := range [][]string{{}, {"-o", "json"}} {
		status, out, stderr := call(t, string(lines), append([]string{"watch", "--once", "--from", "-"}, args...)...)
		first, second, third := strings.Index(out, "first.example"), strings.Index(out, "second.example"), strings.Index(out, "third.example")
		if status != exitOK || stderr != "" || first < 0 || second < first || third < second {
			t.Errorf("%q: status %d, %s\n%s", args, status, stderr, out)
		}
		if n := strings.Count(out, "\n"); len(args) == 0 && n != 4 || len(args) > 0 && n != 3 {
			t.Errorf("%q: %d lines\n%s", args, n, out)
		}
	}
}

func TestErrors(t *testing.T) {
	path := records(t)
	socket := filepath.Join(t.TempDir(), "api.sock")
	for _, tc := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"explan"}, exitUsage, "unknown command"},
		{[]string{"explain", "a", "b"}, exitUsage, "got 2: a b"},
		{[]string{"explain", "--nope"}, exitUsage, "unknown flag: --nope; see `dnstrace explain --help`"},
		{[]string{"explain", "--limit", "0"}, exitUsage, "--limit: expected a number above 0"},
		{[]string{"explain", "--since", "-5m"}, exitUsage, "--since: expected a duration above 0"},
		{[]string{"explain", "--since", "yesterday"}, exitUsage, "invalid argument"},
		{[]string{"watch", "-o", "xml"}, exitUsage, "-o xml: expected table or json"},
		{[]string{"watch", "-f", "rcod == 1"}, exitUsage, "did you mean rcode?"},
		{[]string{"watch", "extra"}, exitUsage, "unknown command"},
		{[]string{"watch", "--api", "x", "--from", "y"}, exitUsage, "--api and --from exclude each other"},
		{[]string{"watch", "--loki", "http://x", "--from", "y"}, exitUsage, "--from and --loki exclude each other"},
		{[]string{"watch", "--loki-query", "{}"}, exitUsage, "--loki-query: needs --loki"},
		{[]string{"watch", "--columns", "time,color"}, exitUsage, `there is no column "color"; there are time client`},
		{[]string{"watch", "-o", "rows"}, exitUsage, "-o rows: expected table or json"},
		{[]string{"top", "--sort", "speed"}, exitUsage, "--sort speed: expected one of name lookups peak timeouts"},
		{[]string{"top", "--window", "0s"}, exitUsage, "--window: expected a duration above 0"},
		{[]string{"top", "-o", "xml"}, exitUsage, "-o xml: expected table or json or rows"},
		{[]string{"top", "--once", "--loki", "nowhere"}, exitFailed, "--loki: expected a URL such as http://loki:3100"},
		{[]string{"watch", "--api", socket}, exitFailed, "is `dnstrace run` running on this node? expected its API at " + socket},
		{[]string{"explain", "--from", "/nonexistent"}, exitFailed, "--from: open /nonexistent: no such file"},
		{[]string{"explain", "nosuch.example", "--from", path, "--since", "9999h"}, exitFailed, "no lookup matches nosuch.example in the last 9999h0m0s: 3 traces searched in " + path},
		{[]string{"explain", "10.0.0.1", "--from", path}, exitFailed, "no lookup matches 10.0.0.1: 3 traces searched in " + path},
		{[]string{"explain", "--from", path, "-f", "rcode == \"REFUSED\""}, exitFailed, "no lookup with the filter rcode == \"REFUSED\": 3 traces"},
	} {
		status, _, stderr := call(t, "", tc.args...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		last := lines[len(lines)-1]
		if status != tc.status || !strings.HasPrefix(last, "dnstrace: ") || !strings.Contains(last, tc.want) {
			t.Errorf("%q: status %d, want %d: %s", tc.args, status, tc.status, stderr)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if status, out, stderr := call(t, "", "completion", shell); status != exitOK || !strings.Contains(out, "dnstrace") {
			t.Errorf("%s: status %d, %s", shell, status, stderr)
		}
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"t"}, "top\t"},
		{[]string{"top", "--sort", "p"}, "p50\np99\n"},
		{[]string{"top", "-o", ""}, "table\njson\nrows\n"},
		{[]string{"watch", "--columns", "time,na"}, "time,name\n"},
	} {
		_, out, _ := call(t, "", append([]string{"__complete"}, tc.args...)...)
		if !strings.Contains(out, tc.want) {
			t.Errorf("%q: %q, want %q", tc.args, out, tc.want)
		}
	}
}

// Every command shows how it is used.
func TestExamples(t *testing.T) {
	for _, c := range newRootCommand().Commands() {
		if c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"watch", "--help"}, {"explain", "--help"}, {"top", "--help"}, {"check", "--help"}, {"--version"}} {
		status, out, stderr := call(t, "", args...)
		if status != exitOK || out == "" || stderr != "" {
			t.Errorf("%q: status %d, %q, %q", args, status, out, stderr)
		}
		for line := range strings.Lines(out) {
			if len([]rune(line)) > 121 {
				t.Errorf("%q: too wide: %s", args, line)
			}
		}
	}
}

// An upstream query of a server that could not be given to its lookup is no client's:
// it is shown to who asks for such, or for just that one.
func TestUpstreamQueriesOnlyOnRequest(t *testing.T) {
	e, _ := recorded(1, "api.example.com.")
	lookup := &trace.Trace{Header: e.Header, QName: e.QName, QType: "A", Outcome: e.Outcome, Exchange: e}
	lookup.Record = trace.KindTrace
	u, _ := recorded(2, "up.example.com.")
	alone := &trace.Trace{Header: u.Header, QName: u.QName, QType: "A", Outcome: u.Outcome, Exchange: u, Role: trace.RoleUpstream}
	alone.Record = trace.KindTrace
	file := string(lookup.AppendJSON(nil)) + "\n" + string(alone.AppendJSON(nil)) + "\n"
	for _, tc := range []struct {
		args []string
		want bool
	}{
		{[]string{"watch"}, false},
		{[]string{"watch", "--upstream"}, true},
		{[]string{"watch", "-f", `role == "upstream"`}, true},
		{[]string{"watch", "-f", `qname != ""`}, false},
		{[]string{"explain", "--all"}, false},
		{[]string{"explain", "--all", "--upstream"}, true},
		{[]string{"explain", alone.TraceID.String()}, true},
	} {
		_, out, stderr := call(t, file, append(tc.args, "--from", "-")...)
		if got := strings.Contains(out, "up.example.com."); got != tc.want {
			t.Errorf("%q: shown: %t\n%s%s", tc.args, got, out, stderr)
		}
	}
	// By a word it is found where that means no client's lookup.
	both := strings.ReplaceAll(file, "up.example.com.", "api.example.com.")
	for _, tc := range []struct {
		file string
		args []string
		want []trace.TraceID
	}{
		{file, []string{"up.example.com"}, []trace.TraceID{alone.TraceID}},
		{both, []string{"api.example.com"}, []trace.TraceID{lookup.TraceID}},
		{both, []string{"api.example.com", "--all"}, []trace.TraceID{lookup.TraceID}},
		{both, []string{"api.example.com", "--upstream"}, []trace.TraceID{lookup.TraceID, alone.TraceID}},
		{both, []string{"api.example.com", "-f", `role == "upstream"`}, []trace.TraceID{alone.TraceID}},
	} {
		_, out, stderr := call(t, tc.file, append(append([]string{"explain"}, tc.args...), "--from", "-")...)
		var got []trace.TraceID
		for _, m := range regexp.MustCompile(`(?m)^ trace +([0-9a-f]{32})$`).FindAllStringSubmatch(out, -1) {
			id, err := trace.ParseTraceID(m[1])
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, id)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q: %s, want %s\n%s", tc.args, got, tc.want, stderr)
		}
	}
}
