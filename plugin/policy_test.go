package dnstrace

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

func TestParsePolicy(t *testing.T) {
	for _, tc := range []struct {
		options string
		sample  float64 // -1 where it is not set
		slow    time.Duration
	}{
		{"", -1, 500 * time.Millisecond},
		{"sample 0.01\n slow 2s", 0.01, 2 * time.Second},
		{"sample 0", 0, 500 * time.Millisecond},
		{"sample 1\n slow 0s", 1, 0},
	} {
		d, err := parse(caddy.NewTestController("dns", "dnstrace {\n "+tc.options+"\n}"))
		if err != nil {
			t.Errorf("%s: %v", tc.options, err)
			continue
		}
		sample := -1.0
		if d.policy.sample != nil {
			sample = *d.policy.sample
		}
		if sample != tc.sample || d.policy.slow != tc.slow {
			t.Errorf("%s: sample %v, slow %v", tc.options, sample, d.policy.slow)
		}
	}
}

func TestParsePolicyErrors(t *testing.T) {
	const rate, duration = ": expected a rate from 0 (failed and slow lookups only) to 1 (every lookup)", ": expected a duration of 0s or more, such as 500ms"
	for options, want := range map[string]string{
		"sample":                  "sample: expected one rate from 0 to 1, got 0 arguments",
		"sample 0.1 0.2":          "sample: expected one rate from 0 to 1, got 2 arguments",
		"sample 1%":               "sample 1%" + rate,
		"sample 1.01":             "sample 1.01" + rate,
		"sample -0.1":             "sample -0.1" + rate,
		"sample NaN":              "sample NaN" + rate,
		"sample 0\n sample 0.5":   "sample is already set to 0: expected it once",
		"slow":                    "slow: expected one duration, got 0 arguments",
		"slow soon":               "slow soon" + duration,
		"slow 500":                "slow 500" + duration,
		"slow -1s":                "slow -1s" + duration,
		"slow 500ms\n slow 500ms": "slow is already set to 500ms: expected it once",
	} {
		line := 2 + strings.Count(options, "\n")
		want = fmt.Sprintf("plugin/dnstrace: Testfile:%d - Error during parsing: %s", line, want)
		if err := setup(caddy.NewTestController("dns", "dnstrace {\n "+options+"\n}")); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", options, err, want)
		}
	}
}

// The quick way to the size of a query is right, or not taken.
func TestSizeOf(t *testing.T) {
	for _, name := range []string{".", "org.", "www.Example.org.", `a\.b.org.`, `a\195b.org.`, "norootdot", strings.Repeat("a.", 120)} {
		for _, change := range []func(*dns.Msg){
			func(*dns.Msg) {},
			func(m *dns.Msg) { m.SetEdns0(1232, true) },
			func(m *dns.Msg) {
				m.SetEdns0(1232, false)
				m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556"}}
			},
			func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 1) },
			func(m *dns.Msg) { answer, _ := dns.NewRR("org. 1 IN A 192.0.2.1"); m.Ns = []dns.RR{answer} },
			func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		} {
			m := new(dns.Msg)
			m.Question = []dns.Question{{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}}
			change(m)
			if got, want := sizeOf(m), m.Len(); got != want {
				t.Errorf("%d instead of %d bytes for\n%s", got, want, m)
			}
		}
	}
}

// answerByName answers as the first label of the question says.
func answerByName(w dns.ResponseWriter, r *dns.Msg) {
	switch label, _, _ := strings.Cut(r.Question[0].Name, "."); label {
	case "servfail":
		answerRcode(dns.RcodeServerFailure)(w, r)
	case "refused":
		answerRcode(dns.RcodeRefused)(w, r)
	case "nxdomain":
		answerRcode(dns.RcodeNameError)(w, r)
	case "slow":
		time.Sleep(150 * time.Millisecond)
		answerA(w, r)
	default:
		answerA(w, r)
	}
}

// Failed and slow lookups are recorded whatever sample says.
func TestPolicyAlwaysRecords(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			sample 0
			slow 100ms
		}
		acl broken.org {
			drop
		}
		forward failing.org `+refusing(t)+` {
			max_connect_attempts 1
		}
		forward failover.org `+refusing(t)+` `+upstream(t, answerByName)+` {
			policy sequential
		}
		forward . `+upstream(t, answerByName)+`
	}`)
	n := 0
	for _, tc := range []struct {
		name    string
		outcome string // empty where it is not recorded
	}{
		{"ordinary.org.", ""},
		{"nxdomain.org.", ""},
		{"slow.org.", trace.OutcomeAnswered},
		{"servfail.org.", trace.OutcomeAnswered},
		{"refused.org.", trace.OutcomeAnswered},
		{"failing.org.", trace.OutcomeError},
		{"failover.org.", trace.OutcomeAnswered},
		{"ordinary.org.", ""},
	} {
		s.ask(tc.name, dns.TypeA)
		if tc.outcome == "" {
			continue
		}
		n++
		if q := s.query(n); q.QName != tc.name || q.Outcome != tc.outcome || q.Sample != nil {
			t.Errorf("%s: recorded %s, outcome %s, sample %v", tc.name, q.QName, q.Outcome, q.Sample)
		}
	}
	c := &dns.Client{Timeout: 200 * time.Millisecond}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("broken.org.", dns.TypeA), s.addr); err == nil {
		t.Error("broken.org. was answered")
	}
	if q := s.query(n + 1); q.Outcome != trace.OutcomeNoResponse {
		t.Errorf("broken.org.: outcome %s", q.Outcome)
	}
}

// What sampling chooses is what trace.Sampled says of the trace id, and its
// record has the rate.
func TestPolicySamples(t *testing.T) {
	const block = ` {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			sample %s
		}
		whoami
	}
	`
	s := start(t, fmt.Sprintf("half.org:0"+block+"all.org:0"+block, "0.5", "1"))
	const queries = 200
	for range queries {
		s.ask("half.org.", dns.TypeA)
	}
	s.stop()
	records := readRecords(t, s.records)
	for _, r := range records {
		q := r.(*trace.Query)
		if q.Sample == nil || *q.Sample != 0.5 || !trace.Sampled(q.TraceID, 0.5) {
			t.Errorf("%s: sample %v", q.TraceID, q.Sample)
		}
	}
	// Six standard deviations around the mean.
	if n := len(records); n < queries/2-43 || n > queries/2+43 {
		t.Errorf("%d of %d recorded", n, queries)
	}
}

// Whoever asks us with a TRACEPARENT decides: a sampled one is recorded, and an
// id of theirs is judged like one of ours.
func TestPolicyFollowsTraceparent(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			accept 127.0.0.0/8
			sample 0.5
		}
		whoami
	}`)
	n := 0
	for _, tc := range []struct {
		last     byte // decides: the first of the last four bytes
		flags    byte
		recorded bool
		rate     bool
	}{
		{0x7f, 0, true, true},
		{0x80, 0, false, false},
		{0x80, trace.FlagSampled, true, false},
	} {
		parent := trace.Traceparent{TraceID: trace.TraceID{0: 1, 12: tc.last}, SpanID: trace.SpanID{1}, Flags: tc.flags}
		m := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: parent.Append(nil)}}
		s.exchange("udp", m)
		if tc.recorded {
			n++
			if q := s.query(n); q.TraceID != parent.TraceID || (q.Sample != nil) != tc.rate {
				t.Errorf("%+v: trace %s, sample %v", tc, q.TraceID, q.Sample)
			}
		}
	}
	s.stop()
	if got := len(readRecords(t, s.records)); got != n {
		t.Errorf("%d records, want %d", got, n)
	}
}

// A refresh is sampled with its query, and recorded when it fails.
func TestPolicyRefresh(t *testing.T) {
	a := &aging{}
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			sample 0
		}
		cache {
			success 100 3600 1
			serve_stale
		}
		forward . `+upstream(t, a.serve)+` {
			max_connect_attempts 2
			`+forwardOption(t, "read_timeout 200ms")+`
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	time.Sleep(expired)
	s.ask("example.org.", dns.TypeA) // stale, and refreshed
	time.Sleep(expired)
	a.down.Store(true)
	s.ask("example.org.", dns.TypeA) // stale, and the refresh fails
	records := s.wait(1)
	if r, ok := records[0].(*trace.Refresh); !ok || r.Sample != nil || r.Upstreams[0].Outcome != trace.OutcomeTimeout {
		t.Errorf("recorded: %s", records[0].AppendJSON(nil))
	}
}
