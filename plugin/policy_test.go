package dnstrace

import (
	"fmt"
	"net"
	"slices"
	"strconv"
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
		{"", 1, 500 * time.Millisecond},
		{"sample 0.01\n slow 2s", 0.01, 2 * time.Second},
		{"sample 0", 0, 500 * time.Millisecond},
		{"sample 1\n slow 0s", 1, 0},
	} {
		d, err := parse(caddy.NewTestController("dns", "dnstrace {\n "+tc.options+"\n}"))
		if err != nil {
			t.Errorf("%s: %v", tc.options, err)
			continue
		}
		if d.sample != tc.sample || d.slow != tc.slow {
			t.Errorf("%s: sample %v, slow %v", tc.options, d.sample, d.slow)
		}
	}
}

func TestParsePolicyErrors(t *testing.T) {
	const rate, duration = ": expected a rate from 0 (failed and slow lookups only) to 1 (every lookup)", ": expected a duration of 0s or more, such as 500ms"
	for options, want := range map[string]string{
		"sample":                  "sample" + rate,
		"sample 0.1 0.2":          "sample 0.1 0.2" + rate,
		"sample 1%":               "sample 1%" + rate,
		"sample 1.01":             "sample 1.01" + rate,
		"sample -0.1":             "sample -0.1" + rate,
		"sample NaN":              "sample NaN" + rate,
		"sample 0\n sample 0.5":   "sample is already set: expected it once",
		"slow":                    "slow" + duration,
		"slow soon":               "slow soon" + duration,
		"slow 500":                "slow 500" + duration,
		"slow -1s":                "slow -1s" + duration,
		"slow 500ms\n slow 500ms": "slow is already set: expected it once",
	} {
		line := 2 + strings.Count(options, "\n")
		want = fmt.Sprintf("plugin/dnstrace: Testfile:%d - Error during parsing: %s", line, want)
		if err := setup(caddy.NewTestController("dns", "dnstrace {\n "+options+"\n}")); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", options, err, want)
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

// What sampling chooses is what trace.Sampled says of the query as it came, by UDP and by
// TCP, whatever another plugin makes of it; its record has the rate.
func TestPolicySamples(t *testing.T) {
	const block = ` {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			sample %s
			slow 1h
		}
		rewrite name exact whoami.org example.org
		whoami
	}
	`
	s := start(t, fmt.Sprintf(".:0"+block+"all.org:0"+block, "0.5", "1"))
	const queries = 200
	var want []string
	for n := range queries {
		addr := []net.Addr{s.instance.Servers()[0].LocalAddr(), s.instance.Servers()[0].Addr()}[n%2]
		network := addr.Network()
		conn, err := net.Dial(network, addr.String())
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion("whoami.org.", dns.TypeA)
		if _, _, err := (&dns.Client{Net: network}).ExchangeWithConn(m, &dns.Conn{Conn: conn}); err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		client, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		transport := map[string]uint8{"udp": trace.TransportUDP, "tcp": trace.TransportTCP}[network]
		if trace.Sampled(trace.SamplingHash(transport, m.Id, uint16(client)), 0.5) {
			want = append(want, fmt.Sprint(network, m.Id, client))
		}
	}
	s.stop()
	var got []string
	for _, r := range readRecords(t, s.records) {
		q := r.(*trace.Query)
		if q.Sample == nil || *q.Sample != 0.5 {
			t.Errorf("%s: sample %v", q.TraceID, q.Sample)
		}
		got = append(got, fmt.Sprint(q.Protocol, q.ID, q.ClientPort))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(want) == 0 || len(want) == queries {
		t.Errorf("%d of %d recorded, want %d:\n%s\n%s", len(got), queries, len(want), got, want)
	}
}

// Whoever asks us with a TRACEPARENT that is sampled decides that the lookup is recorded;
// the others go by their own packet, whatever their trace id is.
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
		byHash, flagged bool
	}{
		{true, false},
		{false, false},
		{false, true},
		{true, true},
	} {
		parent := trace.Traceparent{TraceID: trace.TraceID{0: 1, 15: byte(n)}, SpanID: trace.SpanID{1}}
		if tc.flagged {
			parent.Flags = trace.FlagSampled
		}
		m := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: parent.Append(nil)}}
		conn, err := net.Dial("udp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		for m.Id = 0; trace.Sampled(trace.SamplingHash(trace.TransportUDP, m.Id, port), 0.5) != tc.byHash; {
			m.Id++
		}
		if _, _, err := new(dns.Client).ExchangeWithConn(m, &dns.Conn{Conn: conn}); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if tc.byHash || tc.flagged {
			n++
			if q := s.query(n); q.TraceID != parent.TraceID || (q.Sample != nil) != !tc.flagged {
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
