package diagnose

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dnstrace/dnstrace/trace"
)

// An error has a finding also where nobody recorded it, with who answered it, what was
// asked, and the server's own words; of a Corefile it speaks only where there is one.
func TestAnsweredError(t *testing.T) {
	for _, tc := range []struct {
		rcode  string
		change func(*trace.Trace)
		code   string
		parts  []string
	}{
		{"NOERROR", nil, "", nil},
		{"NXDOMAIN", nil, "", nil},
		{"SERVFAIL", func(t *trace.Trace) {
			t.Exchange.ExtendedError = &trace.ExtendedError{Code: 6, Name: "DNSSEC Bogus", Text: "no keys"}
		}, UpstreamError, []string{`The server 192.0.2.53 port 53 answered SERVFAIL to upd.test. SOA (extended error 6 DNSSEC Bogus, "no keys").`, "extended error 6 DNSSEC Bogus", `"no keys"`}},
		{"SERVFAIL", func(t *trace.Trace) {
			t.Query = &trace.Query{AnsweredBy: "file", Error: "zone expired"}
		}, UpstreamError, []string{"CoreDNS answered SERVFAIL to upd.test. SOA: zone expired.", "answered by file", "zone expired"}},
		{"SERVFAIL", func(t *trace.Trace) { t.Query = ended("kubernetes") }, UpstreamError, []string{"CoreDNS answered SERVFAIL to upd.test. SOA by its plugin kubernetes.", "API server"}},
		{"SERVFAIL", func(t *trace.Trace) { t.Query = ended("secondary") }, UpstreamError, []string{"by its plugin secondary.", "transfer"}},
		{"SERVFAIL", func(t *trace.Trace) { t.Query = ended("forward"); t.Query.Error = "no healthy proxies" }, UpstreamError, []string{"SOA: no healthy proxies.", "See `forward` in the Corefile"}},
		{"NOTIMP", func(t *trace.Trace) { t.Exchange.Opcode = 5 }, RefusedByServer, []string{"answered NOTIMP to UPDATE for the zone upd.test.\n", "primary"}},
		{"FORMERR", nil, RefusedByServer, []string{"answered FORMERR", "EDNS"}},
		{"BADVERS", nil, RefusedByServer, []string{"answered BADVERS", "EDNS"}},
		{"REFUSED", nil, RefusedByServer, []string{"access list"}},
		{"REFUSED", func(t *trace.Trace) { t.Server = &trace.Endpoint{Process: "coredns"} }, RefusedByServer, []string{"Corefile"}},
	} {
		took := trace.Seconds(1000)
		ex := &trace.Exchange{DNS: trace.DNS{ClientIP: netip.MustParseAddr("192.0.2.1"), QName: "upd.test.", QType: "SOA", RCode: tc.rcode, Duration: &took},
			ServerIP: netip.MustParseAddr("192.0.2.53"), ServerPort: 53, Outcome: trace.OutcomeAnswered, Transmissions: 1}
		tr := &trace.Trace{QName: "upd.test.", QType: "SOA", RCode: tc.rcode, Outcome: trace.OutcomeAnswered, Duration: &took, Exchange: ex}
		if tc.change != nil {
			tc.change(tr)
		}
		findings := New().Trace(tr)
		if tc.code == "" {
			if len(findings) != 0 {
				t.Errorf("%s: %+v", tc.rcode, findings)
			}
			continue
		}
		if len(findings) != 1 || findings[0].Code != tc.code {
			t.Errorf("%s: %+v", tc.rcode, findings)
			continue
		}
		f := findings[0]
		all := f.Summary + "\n" + strings.Join(f.Evidence, "\n") + "\n" + f.Advice
		if len(f.Advice) > 130 || len(f.Summary) > 154 {
			t.Errorf("%s: too long: %s > %s", tc.rcode, f.Summary, f.Advice)
		}
		for _, part := range tc.parts {
			if !strings.Contains(all, part) {
				t.Errorf("%s: %q is missing in\n%s", tc.rcode, part, all)
			}
		}
		if strings.Contains(all, "Corefile") != isCoreDNS(tr) && tc.rcode == "REFUSED" {
			t.Errorf("%s: %s", tc.rcode, all)
		}
	}
}

// ended is CoreDNS's record of a query that failed in a plugin, which asked nobody.
func ended(plugin string) *trace.Query {
	return &trace.Query{DNS: trace.DNS{RCode: "SERVFAIL"}, Hops: []trace.Hop{{Plugin: "errors"}, {Plugin: plugin}}}
}

// Of what CoreDNS says of an attempt, its last words are the reason; of what a server says,
// as much as a sentence holds.
func TestReasonsInTheirOwnWords(t *testing.T) {
	for text, want := range map[string]string{
		"dial tcp 192.0.2.1:53: connect: connection refused": " (connection refused)", "no healthy proxies": " (no healthy proxies)", "": "",
	} {
		if got := lastWords([]*trace.Upstream{{Attempt: &trace.Attempt{Error: text}}}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	long := &trace.Exchange{ExtendedError: &trace.ExtendedError{Code: 22, Text: strings.Repeat("日本 ", 100)}}
	if got := inWords(long); len([]rune(got)) > 100 || !strings.HasPrefix(got, ` (extended error 22, "日本 `) || !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
	if inWords(nil) != "" || inWords(&trace.Exchange{}) != "" {
		t.Error("words of nobody")
	}
}
