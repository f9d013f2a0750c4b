package dnstrace

import (
	clog "log"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

func TestMissAndHit(t *testing.T) {
	up := upstream(t, answerA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache
		forward . `+up+`
	}`)
	before := time.Now()
	m := new(dns.Msg).SetQuestion("Example.ORG.", dns.TypeA)
	m.SetEdns0(1400, true)
	c := new(dns.Client)
	conn, err := c.Dial(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, _, err := c.ExchangeWithConn(m, conn)
	if err != nil {
		t.Fatal(err)
	}
	client := conn.LocalAddr().(*net.UDPAddr).AddrPort()

	q := s.query(1)
	wire := []byte("\x07example\x03org\x00")
	flow := trace.NewFlow(trace.TransportUDP, client, m.Id, dns.TypeA, dns.ClassINET, wire)
	if q.Flow != flow || !trace.SameLookup(q.TraceID, trace.NewTraceID(before, flow)) {
		t.Errorf("trace id %s, flow %s; want flow %s", q.TraceID, q.Flow, flow)
	}
	parent := trace.NewSpanID(q.TraceID, trace.SpanID{}, trace.RoleClient, 0)
	if *q.ParentSpanID != parent || q.SpanID != trace.NewSpanID(q.TraceID, parent, trace.RoleServer, 0) {
		t.Errorf("span %s, parent %s", q.SpanID, q.ParentSpanID)
	}
	if q.ClientIP != client.Addr() || q.ClientPort != client.Port() || q.QName != "example.org." || q.QType != "A" ||
		q.QClass != "IN" || q.Protocol != "udp" || q.ID != m.Id || q.Opcode != 0 || q.RequestSize != m.Len() ||
		!q.DNSSECOK || q.BufSize != 1400 || q.RCode != "NOERROR" || *q.ResponseSize != answer.Len() {
		t.Errorf("DNS fields: %+v", q.DNS)
	}
	server := s.instance.Servers()[0].LocalAddr().(*net.UDPAddr).AddrPort()
	if q.ServerIP != server.Addr() || q.ServerPort != server.Port() || q.Zone != "." || q.Stamped {
		t.Errorf("server %s port %d zone %q", q.ServerIP, q.ServerPort, q.Zone)
	}
	if q.Cache != trace.CacheMiss || q.AnsweredBy != "forward" || q.Outcome != trace.OutcomeAnswered || q.Error != "" {
		t.Errorf("cache %s, answered by %s, %s %s", q.Cache, q.AnsweredBy, q.Outcome, q.Error)
	}
	if got := hops(q.Hops); got != "cache forward<cache" {
		t.Errorf("hops: %s", got)
	}
	if got := attempts(q.Upstreams); got != "1 ok "+up || q.Upstreams[0].Plugin != "forward" {
		t.Errorf("attempts: %s", got)
	}
	checkTimes(t, q)

	s.ask("example.org.", dns.TypeA) // without DO: another item of the cache
	s.query(2)                       // a record is made after the answer
	s.ask("example.org.", dns.TypeA)
	q = s.query(3)
	if q.Cache != trace.CacheHit || q.AnsweredBy != "cache" || hops(q.Hops) != "cache" || len(q.Upstreams) != 0 {
		t.Errorf("hit: cache %s, answered by %s, hops %s", q.Cache, q.AnsweredBy, hops(q.Hops))
	}
	checkTimes(t, q)
}

// checkTimes checks that hops and attempts lie inside what they are part of.
func checkTimes(t *testing.T, q *trace.Query) {
	t.Helper()
	if age := time.Since(q.Time); age < 0 || age > time.Minute {
		t.Errorf("time %s is %s ago", q.Time, age)
	}
	last := trace.Seconds(0)
	for i, h := range q.Hops {
		if h.Duration == nil || h.Start < last {
			t.Errorf("hop %d: %+v", i, h)
			continue
		}
		last = h.Start
		if h.Parent != nil {
			p := q.Hops[*h.Parent]
			if h.Start < p.Start || h.Start+*h.Duration > p.Start+*p.Duration {
				t.Errorf("hop %d is not inside its parent", i)
			}
		}
	}
	for _, a := range q.Upstreams {
		if q.Duration != nil && a.Start+*a.Duration > *q.Duration {
			t.Errorf("attempt %d ends after the answer", a.Attempt)
		}
	}
}

func TestNegativeAnswers(t *testing.T) {
	for _, tc := range []struct {
		rcode         int
		first, second string
	}{
		{dns.RcodeSuccess, "NOERROR miss answered", "NOERROR hit answered"}, // no data of the type
		{dns.RcodeNameError, "NXDOMAIN miss answered", "NXDOMAIN hit answered"},
		{dns.RcodeServerFailure, "SERVFAIL miss answered", "SERVFAIL hit answered"},
		{dns.RcodeRefused, "REFUSED miss answered", "REFUSED miss answered"}, // relayed, not CoreDNS's own; not cached
	} {
		s := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
			}
			cache
			forward . `+upstream(t, answerRcode(tc.rcode))+`
		}`)
		for i, want := range []string{tc.first, tc.second} {
			s.ask("example.org.", dns.TypeA)
			q := s.query(i + 1)
			if got := q.RCode + " " + q.Cache + " " + q.Outcome; got != want {
				t.Errorf("%d: got %s, want %s", i+1, got, want)
			}
		}
	}
}

func TestFailover(t *testing.T) {
	quiet, up := silent(t), upstream(t, answerA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+quiet+` `+up+` {
			policy sequential
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	if got := attempts(q.Upstreams); got != "1 timeout "+quiet+", 2 ok "+up {
		t.Errorf("attempts: %s", got)
	}
	if q.Outcome != trace.OutcomeAnswered || q.Cache != trace.CacheNone || q.AnsweredBy != "forward" || (q.Upstreams[0].Error != "") != patched {
		t.Errorf("%s, cache %s, answered by %s", q.Outcome, q.Cache, q.AnsweredBy)
	}
	if got := observed(t, quiet, trace.OutcomeTimeout); got != 1 {
		t.Errorf("%d timeouts are counted", got)
	}
	if d := q.Duration.Duration(); d < 2*time.Second || d > 3*time.Second {
		t.Errorf("it took %s", d)
	}
	checkTimes(t, q)
}

func TestUpstreamsDown(t *testing.T) {
	var out syncBuffer
	clog.SetOutput(&out)
	defer clog.SetOutput(os.Stderr)
	down := refusing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		errors
		dnstrace {
			output file $RECORDS
		}
		cache
		forward . `+down+` {
			max_connect_attempts 2
		}
	}`)
	m := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	m.SetEdns0(1232, false)
	answer := s.exchange("udp", m)
	q := s.query(1)
	if q.RCode != "SERVFAIL" || q.Outcome != trace.OutcomeError || q.AnsweredBy != "" || q.Cache != trace.CacheMiss ||
		!strings.Contains(q.Error, "connection refused") || q.Duration == nil {
		t.Errorf("%s %s answered by %q, cache %s: %s", q.RCode, q.Outcome, q.AnsweredBy, q.Cache, q.Error)
	}
	if *q.ResponseSize != answer.Len() {
		t.Errorf("response size %d, the answer has %d", *q.ResponseSize, answer.Len())
	}
	if got := attempts(q.Upstreams); got != "1 error "+down+", 2 error "+down {
		t.Errorf("attempts: %s", got)
	}
	// The error goes on to the errors plugin.
	if got := out.String(); !strings.Contains(got, "[ERROR] plugin/errors: 2 example.org. A: ") || !strings.Contains(got, "connection refused") {
		t.Errorf("the log is\n%s", got)
	}
	// Only the last error gets out of forward, unless it is patched.
	if (q.Upstreams[0].Error != "") != patched || q.Upstreams[1].Error != q.Error {
		t.Errorf("errors: %q, %q", q.Upstreams[0].Error, q.Upstreams[1].Error)
	}
}

func TestFailoverByRcode(t *testing.T) {
	first, second := upstream(t, answerRcode(dns.RcodeServerFailure)), upstream(t, answerA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+first+` `+second+` {
			policy sequential
			failover SERVFAIL
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	// Whether the first failed or answered SERVFAIL does not show.
	if got := attempts(s.query(1).Upstreams); got != "1 failed "+first+", 2 ok "+second {
		t.Errorf("attempts: %s", got)
	}
	if got := observed(t, first, trace.OutcomeFailed); got != 1 {
		t.Errorf("%d failed attempts are counted", got)
	}
}

func TestNextForward(t *testing.T) {
	first, second := upstream(t, answerRcode(dns.RcodeNameError)), upstream(t, answerA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+first+` {
			next NXDOMAIN
		}
		forward . `+second+`
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	if got := attempts(q.Upstreams); got != "1 ok "+first+", 2 ok "+second {
		t.Errorf("attempts: %s", got)
	}
	if got := hops(q.Hops); got != "forward forward<forward" {
		t.Errorf("hops: %s", got)
	}
}

func TestRefusedAndDropped(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		acl refused.org {
			block
		}
		acl dropped.org {
			drop
		}
		whoami
	}`)
	s.ask("refused.org.", dns.TypeA)
	q := s.query(1)
	if q.RCode != "REFUSED" || q.Outcome != trace.OutcomeRefused || q.AnsweredBy != "acl" {
		t.Errorf("refused: %s %s by %s", q.RCode, q.Outcome, q.AnsweredBy)
	}
	c := &dns.Client{Timeout: 100 * time.Millisecond}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("dropped.org.", dns.TypeA), s.addr); err == nil {
		t.Fatal("the query was answered")
	}
	q = s.query(2)
	if q.RCode != "" || q.Outcome != trace.OutcomeNoResponse || q.AnsweredBy != "" || q.Duration != nil || q.ResponseSize != nil {
		t.Errorf("dropped: %q %s by %q", q.RCode, q.Outcome, q.AnsweredBy)
	}
}

func TestPanic(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		errors
		dnstrace {
			output file $RECORDS
		}
		cache
		panic
	}`)
	if answer := s.ask("example.org.", dns.TypeA); answer.Rcode != dns.RcodeServerFailure {
		t.Errorf("CoreDNS answered %s", dns.RcodeToString[answer.Rcode])
	}
	q := s.query(1)
	if q.RCode != "SERVFAIL" || q.Outcome != trace.OutcomeError || q.Error != "panic: a bug" || hops(q.Hops) != "cache panic<cache" {
		t.Errorf("%s %s %q, hops %s", q.RCode, q.Outcome, q.Error, hops(q.Hops))
	}
}

func TestTCPAndZones(t *testing.T) {
	s := start(t, `example.org:0 example.net:0 {
		bind 127.0.0.1
		dnstrace sub.example.org example.net {
			output file $RECORDS
		}
		whoami
	}`)
	s.ask("example.org.", dns.TypeA) // answered, not recorded
	m := new(dns.Msg).SetQuestion("a.sub.example.org.", dns.TypeAAAA)
	s.addr = s.instance.Servers()[0].Addr().String()
	s.exchange("tcp", m)
	q := s.query(1)
	if q.Protocol != "tcp" || q.QType != "AAAA" || q.BufSize != 65535 || q.Zone != "example.org." || q.AnsweredBy != "whoami" {
		t.Errorf("%s %s bufsize %d zone %s by %s", q.Protocol, q.QType, q.BufSize, q.Zone, q.AnsweredBy)
	}
	wire := []byte("\x01a\x03sub\x07example\x03org\x00")
	client := trace.NewFlow(trace.TransportTCP, addrPort(q), m.Id, dns.TypeAAAA, dns.ClassINET, wire)
	if q.Flow != client {
		t.Errorf("flow %s, want %s", q.Flow, client)
	}
}
