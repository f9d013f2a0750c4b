package filter

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

func TestTarget(t *testing.T) {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	flow := trace.NewFlow(trace.TransportUDP, netip.MustParseAddrPort("10.244.0.4:50202"), 1, 1, 1, []byte{0})
	id := trace.NewTraceID(at, flow)
	tr := lookup()
	tr.Header.TraceID = id
	tr.Exchange.ClientPort = 50202
	tr.Exchange.ServerIP, tr.Exchange.ServerPort = netip.MustParseAddr("10.96.0.10"), 53
	tr.Exchange.NAT = &trace.NAT{ServerIP: netip.MustParseAddr("10.244.0.2")}
	tr.Server = &trace.Endpoint{Pod: "coredns-1", Namespace: "kube-system"}
	adopted, below := trace.TraceID{1, 2, 3}, trace.TraceID{4, 5, 6}
	tr.Upstreams[1].Upstreams = []trace.Upstream{{
		Exchange: &trace.Exchange{ServerIP: netip.MustParseAddr("2001:db8::1"), ServerPort: 5353},
		Query:    &trace.Query{Header: trace.Header{TraceID: below}},
	}}
	tr.Query = &trace.Query{Header: trace.Header{TraceID: adopted}}
	for text, want := range map[string]bool{
		"api.example.com.":        true,
		"api.example.com":         true,
		"API.Example.COM":         true,
		"example.com":             false,
		"*.example.com":           true,
		"api.*":                   true,
		"*":                       true,
		"a.i.example.com":         false,
		"mypod":                   true,
		"my*":                     true,
		"demo/mypod":              true,
		"demo/*":                  true,
		"other/mypod":             false,
		"pod":                     false,
		"10.244.0.4":              true,
		"::ffff:10.244.0.4":       true,
		"10.244.0.4:50202":        true,
		"10.244.0.4:1":            false,
		"10.244.0.5":              false,
		"10.96.0.10":              true,
		"10.96.0.10:54":           false,
		"10.244.0.2:53":           true,
		"192.0.2.1":               true,
		"192.0.2.1:53":            true,
		"192.0.2.1:54":            false,
		"2001:db8::1":             true,
		"[2001:db8::1]:5353":      true,
		"2001:db8::2":             false,
		"kube-system/coredns-*":   true,
		"upstream-timeout":        true,
		"Upstream-Timeout":        true,
		"upstream-error":          false,
		"NXDOMAIN":                true,
		id.String():               true,
		adopted.String():          true,
		below.String():            true,
		trace.TraceID{9}.String(): false,
		trace.NewTraceID(at.Add(trace.StepSeconds*time.Second), flow).String():   true,
		trace.NewTraceID(at.Add(3*trace.StepSeconds*time.Second), flow).String(): false,
	} {
		if got := ParseTarget(text).Match(tr); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if ParseTarget("*").Match(&trace.Trace{QName: "x."}) != true || ParseTarget("mypod").Match(&trace.Trace{QName: "x."}) {
		t.Error("a trace of which only the name is known")
	}
}

func TestTargetNames(t *testing.T) {
	for text, known := range map[string]bool{"example.com": true, "*.example.com": true, "mypod": false, "demo/my.pod": false, "10.244.0.4": false} {
		names := ParseTarget(text).Names()
		if (names != nil) != known {
			t.Errorf("%s: names known: %v", text, names != nil)
		}
		if known && (!names("x.example.com.") && !names("example.com.") || names("example.org.") || !names("example.com.svc.cluster.local.") && !names("x.example.com.svc.cluster.local.")) {
			t.Errorf("%s: wrong names", text)
		}
	}
}

func TestTargetSuffixed(t *testing.T) {
	tr := &trace.Trace{QName: "www.example.com.svc.cluster.local."}
	for text, want := range map[string]bool{"www.example.com": true, "WWW": true, "www.example.com.": false, "example.com": false, "ww": false, "10.0.0.1": false, "demo/www": false} {
		if got := ParseTarget(text).MatchSuffixed(tr); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestTargetResult(t *testing.T) {
	nx := &trace.Trace{QName: "x.example.", RCode: "NXDOMAIN", Outcome: trace.OutcomeAnswered}
	lost := &trace.Trace{QName: "refused.", Outcome: trace.OutcomeDropped}
	for text, want := range map[string][2]bool{
		"NXDOMAIN": {true, false}, "nxdomain": {true, false}, "servfail": {false, false}, "dropped": {false, true}, "Unanswered": {false, false},
		// A word that is a code may still be a name.
		"refused": {false, true},
	} {
		target := ParseTarget(text)
		if got := [2]bool{target.Match(nx), target.Match(lost)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestTargetText(t *testing.T) {
	for text, want := range map[string]string{
		"Example.com": "example.com", "*.example.com": ".example.com", "api.*.svc.cluster.local": ".svc.cluster.local",
		"mypod": "", "demo/my.pod": "", "10.0.0.1": "",
	} {
		if got := ParseTarget(text).Text(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	id := trace.TraceID{1, 2, 3}
	if got := ParseTarget(id.String()).ID(); got != id || !ParseTarget("x").ID().IsZero() {
		t.Errorf("id %s", got)
	}
}

func FuzzTarget(f *testing.F) {
	f.Add("*.example.com", "www.example.com.")
	f.Add("demo/my(pod", "x.")
	f.Fuzz(func(t *testing.T, text, name string) {
		target := ParseTarget(text)
		tr := &trace.Trace{QName: name, Client: &trace.Endpoint{Pod: name, Namespace: "demo"}}
		if names := target.Names(); names != nil && !names(name) && target.Match(tr) && target.Match(&trace.Trace{QName: name}) {
			t.Errorf("%q: the name %q is left out, and its trace is meant", text, name)
		}
		if names := target.Names(); names != nil && names(name) && !strings.Contains(name, target.Text()) {
			t.Errorf("%q: the name %q does not have %q", text, name, target.Text())
		}
	})
}
