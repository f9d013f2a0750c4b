package dnstrace

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

const acceptLoopback = `dnstrace {
	output file $RECORDS
	accept 127.0.0.0/8
}`

const stampAll = `dnstrace {
	output file $RECORDS
	stamp all
}`

// attemptSpan is the span that an attempt names to its upstream.
func attemptSpan(q *trace.Query, number int) trace.SpanID {
	return trace.NewSpanID(q.TraceID, q.SpanID, trace.RoleAttempt, number)
}

// checkChain checks that back is what an attempt of front set off.
func checkChain(t *testing.T, front, back *trace.Query, attempt int) {
	t.Helper()
	parent := attemptSpan(front, attempt)
	if back.TraceID != front.TraceID || back.ParentSpanID == nil || *back.ParentSpanID != parent {
		t.Errorf("trace %s, parent %s; want trace %s, parent %s", back.TraceID, back.ParentSpanID, front.TraceID, parent)
	}
	if want := trace.NewSpanID(front.TraceID, parent, trace.RoleServer, 0); back.SpanID != want || back.SpanID == front.SpanID {
		t.Errorf("span %s, want %s", back.SpanID, want)
	}
	wire := []byte("\x07example\x03org\x00")
	flow := trace.NewFlow(trace.TransportUDP, netip.AddrPortFrom(back.ClientIP, back.ClientPort), back.ID, dns.TypeA, dns.ClassINET, wire)
	if back.Flow != flow || back.Flow == front.Flow {
		t.Errorf("flow %s, want %s from the packet", back.Flow, flow)
	}
}

// Three servers in a row make one trace, whatever stands between dnstrace and
// forward; loadbalance and rewrite are handlers that are no pointers.
func TestChain(t *testing.T) {
	last := start(t, ".:0 {\n bind 127.0.0.1\n"+acceptLoopback+"\n template IN A {\n answer \"{{ .Name }} 60 IN A 192.0.2.7\"\n }\n}")
	middle := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			accept 127.0.0.0/8
			stamp 127.0.0.0/8
		}
		loadbalance
		cache
		rewrite name old.org new.org
		forward . `+last.addr+`
	}`)
	first := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+"\n forward . "+middle.addr+"\n}")
	for i := range 2 {
		if answer := first.ask("example.org.", dns.TypeA); len(answer.Answer) != 1 || len(answer.Extra) != 0 {
			t.Fatalf("the answer is\n%s", answer)
		}
		first.wait(i + 1) // the order of records is that of their ends
		middle.wait(i + 1)
	}
	fronts, _ := split(first.wait(2))
	middles, _ := split(middle.wait(2))
	miss, hit := middles[0], middles[1]
	checkChain(t, fronts[0], miss, 1)
	checkChain(t, miss, last.query(1), 1)
	checkChain(t, fronts[1], hit, 1)
	if !miss.Stamped || hit.Stamped || !fronts[1].Stamped || last.query(1).Stamped {
		t.Errorf("stamped: miss %t, hit %t", miss.Stamped, hit.Stamped)
	}
	// CoreDNS 1.13 has cache before rewrite.
	if got := hops(miss.Hops); len(miss.Hops) != 4 || !strings.HasPrefix(got, "loadbalance ") || !strings.Contains(got, "forward<") {
		t.Errorf("hops: %s", got)
	}
	if miss.AnsweredBy != "forward" || miss.Cache != trace.CacheMiss || attempts(miss.Upstreams) != "1 ok "+last.addr {
		t.Errorf("answered by %s, cache %s, attempts %s", miss.AnsweredBy, miss.Cache, attempts(miss.Upstreams))
	}
}

// Of two servers in a row that sample, the second records what the first does. The queries
// between them are others than the client's, so it records some of its own as well.
func TestChainSamplesAlike(t *testing.T) {
	const queries, rate = 200, "sample 0.3"
	back := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n accept 127.0.0.0/8\n "+rate+"\n }\n whoami\n}")
	front := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n stamp all\n "+rate+"\n slow 1h\n }\n forward . "+back.addr+"\n}")
	for range queries {
		front.ask("example.org.", dns.TypeA)
	}
	front.stop()
	back.stop()
	chosen := func(s *server) []string {
		var ids []string
		for _, r := range readRecords(t, s.records) {
			ids = append(ids, r.(*trace.Query).TraceID.String())
		}
		slices.Sort(ids)
		return ids
	}
	first, second := chosen(front), chosen(back)
	// Six standard deviations around the mean.
	if n := len(first); n < 60-39 || n > 60+39 {
		t.Errorf("%d of %d recorded", n, queries)
	}
	for _, id := range first {
		if !slices.Contains(second, id) {
			t.Errorf("%s: recorded by the first server only", id)
		}
	}
	// 0.3 of the 140 others.
	if n := len(second) - len(first); n < 42-33 || n > 42+33 {
		t.Errorf("the first recorded %d, the second %d", len(first), len(second))
	}
}

// Each attempt has a span of its own, also where one forward hands on to another.
func TestChainFailover(t *testing.T) {
	silent, negative := newCapture(t, quiet), upstream(t, answerRcode(dns.RcodeNameError))
	back := start(t, ".:0 {\n bind 127.0.0.1\n"+acceptLoopback+"\n whoami\n}")
	front := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+`
		forward . `+silent.addr+` `+negative+` {
			policy sequential
			next NXDOMAIN
			`+forwardOption(t, "read_timeout 100ms")+`
		}
		forward . `+back.addr+`
	}`)
	front.ask("example.org.", dns.TypeA)
	q := front.query(1)
	if got := attempts(q.Upstreams); got != "1 timeout "+silent.addr+", 2 ok "+negative+", 3 ok "+back.addr {
		t.Fatalf("attempts: %s", got)
	}
	checkChain(t, q, back.query(1), 3)
	if _, context := silent.last(t); context == nil || context.SpanID != attemptSpan(q, 1) || context.TraceID != q.TraceID {
		t.Errorf("the first upstream got %v", context)
	}
}

// An upstream outside the list does not get the option, whether it is asked
// before or after one inside.
func TestStampList(t *testing.T) {
	for _, tc := range []struct{ to, first, second string }{
		{"127.0.0.2/32", "127.0.0.1:0", "127.0.0.2:0"},
		{"127.0.0.0/31 ::1/128", "127.0.0.1:0", "127.0.0.2:0"},
		{"::ffff:127.0.0.1/128", "127.0.0.1:0", "127.0.0.2:0"},
		{"192.0.2.0/24", "127.0.0.1:0", "127.0.0.2:0"},
		{"::1/128", "[::1]:0", "127.0.0.2:0"},
		{"0.0.0.0/0", "[::1]:0", "127.0.0.2:0"},
	} {
		first, second := captureOn(t, tc.first, quiet), captureOn(t, tc.second, echoA)
		s := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
				stamp `+tc.to+`
			}
			forward . `+first.addr+` `+second.addr+` {
				policy sequential
				`+forwardOption(t, "read_timeout 50ms")+`
			}
		}`)
		s.ask("example.org.", dns.TypeA)
		q := s.query(1)
		var to networks
		for p := range strings.FieldsSeq(tc.to) {
			prefix := netip.MustParsePrefix(p)
			if prefix.Addr().Is4In6() {
				prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
			}
			to = append(to, prefix)
		}
		stamped := false
		for _, u := range []*capture{first, second} {
			want := to.contain(netip.MustParseAddrPort(u.addr).Addr())
			stamped = stamped || want
			m, context := u.last(t)
			if (context != nil) != want || (m.IsEdns0() != nil) != want {
				t.Errorf("stamp %s: %s got %v", tc.to, u.addr, m)
			}
		}
		if q.Stamped != stamped {
			t.Errorf("stamp %s: stamped is %t", tc.to, q.Stamped)
		}
	}
}

// A lookup that leads into another server block goes by the policy of that one.
func TestStampOfAnotherBlock(t *testing.T) {
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, []byte(zoneFile), 0o600); err != nil {
		t.Fatal(err)
	}
	own, other := newCapture(t, echoA), newCapture(t, echoA)
	s := start(t, `example.org:0 {
		bind 127.0.0.1
		`+stampAll+`
		file `+zone+`
		forward . `+own.addr+`
	}
	.:0 {
		bind 127.0.0.1
		forward . `+other.addr+`
	}`)
	s.ask("www.example.org.", dns.TypeA)
	if _, context := other.last(t); context != nil {
		t.Errorf("the upstream of the other block got %v", context)
	}
	if q := s.query(1); q.Stamped || len(q.Upstreams) != 1 {
		t.Errorf("stamped %t, attempts %s", q.Stamped, attempts(q.Upstreams))
	}
}

// What is not recorded has no span that the option could name.
func TestStampOutsideZones(t *testing.T) {
	up := newCapture(t, echoA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace example.net {
			output file $RECORDS
			stamp all
		}
		forward . `+up.addr+`
	}`)
	s.ask("example.org.", dns.TypeA)
	if m, context := up.last(t); context != nil || m.IsEdns0() != nil {
		t.Errorf("the upstream got\n%s", m)
	}
}

// A refresh belongs to the query that set it off, and never to an older one.
func TestStampRefresh(t *testing.T) {
	up := newCapture(t, func(q *dns.Msg) *dns.Msg {
		m := echoA(q)
		m.Answer[0].Header().Ttl = 1
		return m
	})
	s := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+`
		cache {
			success 100 3600 1
			serve_stale 1h immediate
		}
		forward . `+up.addr+` {
			prefer_udp
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	miss := s.query(1)
	time.Sleep(expired)
	s.ask("example.org.", dns.TypeA)
	queries, refreshes := split(s.wait(3))
	if len(queries) != 2 || len(refreshes) != 1 {
		t.Fatalf("%d queries, %d refreshes", len(queries), len(refreshes))
	}
	stale := queries[1]
	if _, context := up.last(t); context == nil || context.TraceID != stale.TraceID || context.TraceID == miss.TraceID ||
		context.SpanID != attemptSpan(stale, refreshes[0].Upstreams[0].Attempt) {
		t.Errorf("the refresh of trace %s went out with %v", stale.TraceID, context)
	}
	if stale.Stamped {
		t.Error("the query asked no upstream")
	}
}

// Only queries are stamped.
func TestStampOpcode(t *testing.T) {
	up := newCapture(t, echoA)
	s := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+"\n forward . "+up.addr+"\n}")
	m := new(dns.Msg).SetNotify("example.org.")
	s.exchange("udp", m)
	if q, context := up.last(t); q.Opcode != dns.OpcodeNotify || context != nil || s.query(1).Stamped {
		t.Errorf("the upstream got\n%s", q)
	}
}

// An attempt of grpc does not say whereto unless it is patched, so all upstreams must be in the list.
func TestStampGRPC(t *testing.T) {
	back := start(t, "grpc://.:0 {\n bind 127.0.0.1\n"+acceptLoopback+"\n whoami\n}")
	for i, tc := range []struct {
		stamp string
		first string // an upstream that does not listen
		want  bool
	}{
		{"all", "127.0.0.2:1", true},
		{"127.0.0.0/8", "127.0.0.2:1", true},
		{"127.0.0.1/32", "", true},
		{"127.0.0.1/32", "127.0.0.2:1", reported(true, false)},
		{"127.0.0.2/32", "", false},
		{"off", "", false},
	} {
		front := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
				stamp `+tc.stamp+`
			}
			grpc . `+tc.first+` `+back.addr+` {
				policy sequential
			}
		}`)
		front.ask("example.org.", dns.TypeA)
		q, records := front.query(1), back.wait(i+1)
		last, ok := records[i].(*trace.Query)
		if !ok {
			t.Fatalf("record %d is a %s", i, records[i].Kind())
		}
		adopted := last.TraceID == q.TraceID && *last.ParentSpanID == attemptSpan(q, len(q.Upstreams))
		if q.Stamped != tc.want || adopted != tc.want {
			t.Errorf("stamp %s, %s: stamped %t, adopted %t", tc.stamp, tc.first, q.Stamped, adopted)
		}
	}
}

// The sampled flag says whether the lookup is recorded here if all goes well.
func TestStampSampled(t *testing.T) {
	for rate, want := range map[string]byte{"0": 0, "1": trace.FlagSampled} {
		up := newCapture(t, echoA)
		s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n stamp all\n sample "+rate+"\n}\n forward . "+up.addr+"\n}")
		s.ask("example.org.", dns.TypeA)
		if _, context := up.last(t); context == nil || context.Flags != want {
			t.Errorf("sample %s: %v", rate, context)
		}
	}
}
