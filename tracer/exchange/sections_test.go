package exchange

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

func records(t *testing.T, lines ...string) []dns.RR {
	t.Helper()
	var list []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr)
	}
	return list
}

// answerTo feeds a query and its response and returns the exchange.
func answerTo(t *testing.T, change func(*dns.Msg), captured func([]byte) []byte) *trace.Exchange {
	t.Helper()
	q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	r := new(dns.Msg).SetReply(q)
	change(r)
	wire := pack(t, r)
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, pack(t, q))
	f.packet(capture.RX, podNS, 2, service, pod, captured(wire), func(p *capture.Packet) { p.PayloadLen = len(wire) })
	f.after(time.Second)
	return f.one()
}

func whole(b []byte) []byte { return b }

func TestAnswers(t *testing.T) {
	chain := records(t, "www.example.com. 300 IN CNAME cdn.example.net.", "cdn.example.net. 60 IN CNAME a\\.b\\000c.example.net.",
		"a\\.b\\000c.example.net. 5 IN A 192.0.2.1", "a\\.b\\000c.example.net. 20 IN RRSIG A 8 2 20 20300101000000 20250101000000 1 example.net. AAAA")
	for _, tc := range []struct {
		name     string
		change   func(*dns.Msg)
		captured func([]byte) []byte
		count    int
		minTTL   uint32
		want     []trace.Answer
	}{
		{"a chain of aliases, compressed", func(r *dns.Msg) { r.Answer, r.Compress = chain, true }, whole, 4, 5, []trace.Answer{
			{Type: "CNAME", Value: "cdn.example.net.", TTL: 300}, {Type: "CNAME", Value: `a\.b\000c.example.net.`, TTL: 60}, {Type: "A", Value: "192.0.2.1", TTL: 5},
		}},
		{"captured in part", func(r *dns.Msg) { r.Answer = chain }, func(b []byte) []byte { return b[:33+44+20] }, 4, 300, []trace.Answer{
			{Type: "CNAME", Value: "cdn.example.net.", TTL: 300},
		}},
		{"IPv6", func(r *dns.Msg) { r.Answer = records(t, "www.example.com. 1 IN AAAA 2001:db8::1") }, whole, 1, 1, []trace.Answer{
			{Type: "AAAA", Value: "2001:db8::1", TTL: 1},
		}},
		{"other types have a TTL only", func(r *dns.Msg) { r.Answer = records(t, "www.example.com. 7 IN TXT x") }, whole, 1, 7, nil},
		{"other sections are no answers", func(r *dns.Msg) {
			r.Answer = records(t, "www.example.com. 9 IN A 192.0.2.2")
			r.Ns = records(t, "example.com. 3 IN NS ns.example.com.")
			r.Extra = records(t, "ns.example.com. 2 IN A 192.0.2.3")
		}, whole, 1, 9, []trace.Answer{{Type: "A", Value: "192.0.2.2", TTL: 9}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := answerTo(t, tc.change, tc.captured)
			if ex.AnswerCount == nil || *ex.AnswerCount != tc.count || ex.MinTTL == nil || *ex.MinTTL != tc.minTTL || !slices.Equal(ex.Answers, tc.want) {
				t.Errorf("%d answers, lowest TTL %v: %+v", *ex.AnswerCount, *ex.MinTTL, ex.Answers)
			}
		})
	}
}

func TestManyAnswersAreBounded(t *testing.T) {
	ex := answerTo(t, func(r *dns.Msg) {
		for i := range 3 * maxAnswers {
			r.Answer = append(r.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: "www.example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(1000 - i)}, A: net.IPv4(192, 0, 2, byte(i)),
			})
		}
	}, whole)
	if *ex.AnswerCount != 3*maxAnswers || len(ex.Answers) != maxAnswers || *ex.MinTTL != 1000-3*maxAnswers+1 {
		t.Errorf("%d answers, %d of them kept, lowest TTL %d", *ex.AnswerCount, len(ex.Answers), *ex.MinTTL)
	}
}

func TestResponseFlags(t *testing.T) {
	ex := answerTo(t, func(r *dns.Msg) {
		r.Authoritative, r.Truncated, r.RecursionDesired, r.RecursionAvailable = true, true, true, true
		r.AuthenticatedData, r.CheckingDisabled = true, true
	}, whole)
	if want := []string{"aa", "tc", "rd", "ra", "ad", "cd"}; !slices.Equal(ex.Flags, want) || !ex.Truncated {
		t.Errorf("flags %v, truncated %t", ex.Flags, ex.Truncated)
	}
	ex = answerTo(t, func(r *dns.Msg) { r.RecursionDesired = false }, whole)
	if len(ex.Flags) != 0 || ex.Truncated || ex.MinTTL != nil || len(ex.Answers) != 0 || *ex.AnswerCount != 0 {
		t.Errorf("nothing set: %+v", ex)
	}
}

func TestExtendedErrors(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options []dns.EDNS0
		want    *trace.ExtendedError
	}{
		{"with a text", []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: "at delegation example.com"}},
			&trace.ExtendedError{Code: 22, Name: "No Reachable Authority", Text: "at delegation example.com"}},
		{"without", []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked}}, &trace.ExtendedError{Code: 15, Name: "Blocked"}},
		{"not registered", []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 49152}}, &trace.ExtendedError{Code: 49152}},
		{"a zero at the end, and no UTF-8", []dns.EDNS0{&dns.EDNS0_EDE{ExtraText: "a\xffb\x00"}}, &trace.ExtendedError{Name: "Other", Text: "a\ufffdb"}},
		{"the first of two, behind another option", []dns.EDNS0{&dns.EDNS0_NSID{Nsid: "aa"}, &dns.EDNS0_EDE{InfoCode: 1}, &dns.EDNS0_EDE{InfoCode: 2}},
			&trace.ExtendedError{Code: 1, Name: "Unsupported DNSKEY Algorithm"}},
		{"truncated", []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0EDE, Data: []byte{0}}}, nil},
		{"none", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ex := answerTo(t, func(r *dns.Msg) {
				r.SetEdns0(1232, false)
				r.IsEdns0().Option = tc.options
			}, whole)
			got := ex.ExtendedError
			if (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// An UPDATE has no answers: its sections mean something else (RFC 2136).
func TestUpdateHasNoAnswers(t *testing.T) {
	m := new(dns.Msg).SetUpdate("example.com.")
	m.RRsetUsed(records(t, "www.example.com. 0 IN A 192.0.2.1"))
	r := m.Copy()
	r.Response = true
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, pack(t, m))
	f.packet(capture.RX, podNS, 2, service, pod, pack(t, r))
	f.after(time.Second)
	if ex := f.one(); ex.Opcode != dns.OpcodeUpdate || len(ex.Answers) != 0 || ex.MinTTL != nil {
		t.Errorf("opcode %d, answers %v", ex.Opcode, ex.Answers)
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct{ wire, want string }{
		{"\x00", "."},
		{"\x03WWW\x07Example\x03com\x00", "www.example.com."},
		{"\x04_dns\x0aa-b_c-0123\x00", "_dns.a-b_c-0123."},
		{"\x03a.b\x00", `a\.b.`},
		{"\x02\x00\xff\x00", `\000\255.`},
		{"\x02\\\"\x00", `\\\".`},
	} {
		if got, err := presentation([]byte(tc.wire)); err != nil || got != tc.want {
			t.Errorf("%q: got %q, %v; want %q", tc.wire, got, err, tc.want)
		}
	}
}
