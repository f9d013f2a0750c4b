package dnstrace

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

func TestParseTraceContext(t *testing.T) {
	for _, tc := range []struct {
		properties    string
		stamp, accept string
		code          uint16
	}{
		{"", "false []", "[]", 65500},
		{"stamp off", "false []", "[]", 65500},
		{"stamp all\noption-code 1234", "true []", "[]", 1234},
		{"stamp 10.0.0.0/8 fd00::/8\naccept 192.0.2.1/24 ::ffff:127.0.0.0/104", "false [10.0.0.0/8 fd00::/8]", "[192.0.2.0/24 127.0.0.0/8]", 65500},
		{"option-code 1", "", "", 0},
		{"option-code 65534", "false []", "[]", 65534},
	} {
		c := caddy.NewTestController("dns", "dnstrace {\n"+tc.properties+"\n}")
		d, err := parse(c)
		if tc.code == 0 {
			if err == nil {
				t.Errorf("%s: no error", tc.properties)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.properties, err)
			continue
		}
		if stamp, accept := fmt.Sprint(d.stamp.all, d.stamp.to), fmt.Sprint(d.accept); stamp != tc.stamp || accept != tc.accept || d.optionCode != tc.code {
			t.Errorf("%s: stamp %s, accept %s, code %d", tc.properties, stamp, accept, d.optionCode)
		}
	}
}

func TestParseTraceContextErrors(t *testing.T) {
	for property, inputs := range map[string][]string{
		"stamp":       {"", " yes", " 10.0.0.0/8 all", " all 10.0.0.0/8", " off all", " 10.0.0.0/33", " 10.0.0.1"},
		"accept":      {"", " all", " 10.0.0.0/8 10.0.0/8", " fd00::/129", " ::ffff:0:0/64"},
		"option-code": {"", " 65500 65501", " 0", " -1", " 65536", " 0xffdc", " 10", " 26", " 65535", " 20292"},
	} {
		for _, input := range inputs {
			want := "plugin/dnstrace: Testfile:2 - Error during parsing: " + property + input + ": expected " + expected[property]
			if err := setup(caddy.NewTestController("dns", "dnstrace {\n"+property+input+"\n}")); err == nil || err.Error() != want {
				t.Errorf("%s: got  %v\nwant %s", input, err, want)
			}
		}
	}
	for _, input := range []string{
		"stamp all\nstamp off", "stamp off\nstamp 10.0.0.0/8", "accept 10.0.0.0/8\naccept fd00::/8", "option-code 1234\noption-code 1234",
	} {
		property, _, _ := strings.Cut(input, " ")
		want := "plugin/dnstrace: Testfile:3 - Error during parsing: " + property + " is already set: expected it once"
		if err := setup(caddy.NewTestController("dns", "dnstrace {\n"+input+"\n}")); err == nil || err.Error() != want {
			t.Errorf("%s: got  %v\nwant %s", input, err, want)
		}
	}
}

// Every code that miekg/dns reads as something else is one that we refuse.
func TestAssignedCodes(t *testing.T) {
	for code := range uint16(100) {
		wire := fmt.Sprintf("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x04\x00%c\x00\x00", code)
		m := new(dns.Msg)
		if err := m.Unpack([]byte(wire)); err != nil {
			continue // the option is read, and must not be empty
		}
		_, local := m.IsEdns0().Option[0].(*dns.EDNS0_LOCAL)
		if !local && !isAssigned(uint64(code)) {
			t.Errorf("code %d", code)
		}
	}
}

// exchangeWire sends a query as it is and returns the answer as it is.
func (s *server) exchangeWire(query []byte) []byte {
	s.t.Helper()
	conn, err := net.Dial("udp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := conn.Write(query); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, dns.MaxMsgSize)
	n, err := conn.Read(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return b[:n]
}

// wireQuery is a query for example.org A with an OPT: UDP size 1232, DO, and
// these options.
func wireQuery(options string) []byte {
	b := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x07example\x03org\x00\x00\x01\x00\x01")
	b = append(b, "\x00\x00\x29\x04\xd0\x00\x00\x80\x00"...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(options)))
	return append(b, options...)
}

// wireOption is an option of a code that is 65500 if not given.
func wireOption(data string, code ...uint16) string {
	b := binary.BigEndian.AppendUint16(nil, append(code, trace.DefaultOptionCode)[0])
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return string(b) + data
}

const wireCookie = "\x00\x0a\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08"

// What the upstream gets is what the client sent, to the byte, except for the ID
// and our option; what the client gets is the answer without it.
func TestStampKeepsTheQuery(t *testing.T) {
	up := newCapture(t, echoA)
	s := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+"\n forward . "+up.addr+"\n}")
	other := wireOption("hello", 65001)
	foreign := wireOption("\x00\x00" + strings.Repeat("\xaa", 24) + "\x01")
	for i, options := range []string{"", wireCookie, wireCookie + other, foreign, wireCookie + foreign + other, foreign + wireCookie + foreign} {
		answer := unpack(t, s.exchangeWire(wireQuery(options)))
		q := s.query(i + 1)
		seen := up.seen()
		own := trace.Traceparent{TraceID: q.TraceID, SpanID: attemptSpan(q, 1), Flags: trace.FlagSampled}
		kept := strings.ReplaceAll(options, foreign, "")
		want := wireQuery(kept + wireOption(string(own.Append(nil))))
		if got := seen[len(seen)-1]; !bytes.Equal(got[2:], want[2:]) {
			t.Errorf("%x: the upstream got\n%x, want\n%x", options, got, want)
		}
		wantOpt := unpack(t, wireQuery(kept)).IsEdns0()
		if opt := answer.IsEdns0(); opt == nil || opt.String() != wantOpt.String() || len(answer.Answer) != 1 || answer.Id != 0x1234 {
			t.Errorf("%x: the client got\n%s", options, answer)
		}
		if q.RequestSize != len(wireQuery(options)) || q.BufSize != 1232 || !q.DNSSECOK || !q.Stamped {
			t.Errorf("%x: request size %d, bufsize %d, stamped %t", options, q.RequestSize, q.BufSize, q.Stamped)
		}
	}
}

// With another code that one is ours, and 65500 is as any option that nobody knows:
// it passes, both ways.
func TestStampWithAnotherCode(t *testing.T) {
	const code = 1234
	up := newCapture(t, echoA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			stamp all
			option-code 1234
		}
		forward . `+up.addr+`
	}`)
	unknown := wireOption("\x00\x00" + strings.Repeat("\xaa", 24) + "\x01")
	foreign := wireOption("\x00\x00"+strings.Repeat("\xbb", 24)+"\x01", code)
	answer := unpack(t, s.exchangeWire(wireQuery(unknown+foreign)))
	q := s.query(1)
	own := trace.Traceparent{TraceID: q.TraceID, SpanID: attemptSpan(q, 1), Flags: trace.FlagSampled}
	want := wireQuery(unknown + wireOption(string(own.Append(nil)), code))
	if seen := up.seen(); len(seen) != 1 || !bytes.Equal(seen[0][2:], want[2:]) {
		t.Errorf("the upstream got\n%x, want\n%x", seen, want)
	}
	if trace.HasTraceparent(answer, code) || !trace.HasTraceparent(answer, trace.DefaultOptionCode) {
		t.Errorf("the client got\n%s", answer)
	}
}

// A message that a plugin from elsewhere writes as bytes keeps the option from the
// client, too; where it cannot be read, is signed or has none, it stays as it is.
func TestUnaskedOptionInBytes(t *testing.T) {
	with, without := wireQuery(wireCookie+wireOption(data27)), wireQuery(wireCookie)
	key := &dns.TSIG{Hdr: dns.RR_Header{Name: "key.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256}
	m := unpack(t, with)
	m.Extra = append(m.Extra, key)
	secret := pack(t, m)
	for _, tc := range []struct{ wire, want []byte }{
		{with, without}, {without, without}, {secret, secret}, {with[:len(with)-3], with[:len(with)-3]}, {nil, nil},
	} {
		r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		for _, zone := range []string{"example.org.", "example.net."} {
			d := traced(t, writing(tc.wire), false)
			d.zones, d.optionCode = []string{zone}, trace.DefaultOptionCode
			var client keepingBytes
			if _, err := d.ServeDNS(t.Context(), &client, r); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(client.wire, tc.want) {
				t.Errorf("zone %s: of %x the client got %x", zone, tc.wire, client.wire)
			}
		}
	}
}

// writing is a plugin that answers in wire format.
type writing []byte

func (writing) Name() string { return "writing" }

func (b writing) ServeDNS(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
	n, err := w.Write(b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return dns.RcodeSuccess, err
}

// keepingBytes is a client that keeps what it got.
type keepingBytes struct {
	discarding
	wire []byte
}

func (c *keepingBytes) Write(b []byte) (int, error) {
	c.wire = b
	return len(b), nil
}

// A client that sent no OPT gets none, and what fits into 512 bytes whole.
func TestStampWithoutOPT(t *testing.T) {
	var records, rcode atomic.Int32
	up := newCapture(t, func(q *dns.Msg) *dns.Msg {
		m := echoA(q)
		for range records.Load() - 1 {
			m.Answer = append(m.Answer, m.Answer[0])
		}
		m.Rcode = int(rcode.Load())
		m.Compress = true
		m.Truncate(int(q.IsEdns0().UDPSize()))
		return m
	})
	s := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+"\n forward . "+up.addr+"\n}")
	query := wireQuery("")
	query = query[:len(query)-11]
	query[11] = 0
	for i, tc := range []struct {
		records, rcode int32
		want           string
	}{
		{1, dns.RcodeSuccess, "NOERROR false 1"},
		{30, dns.RcodeSuccess, "NOERROR false 30"}, // 509 bytes, which leaves no room for an OPT
		{31, dns.RcodeSuccess, "NOERROR true 30"},
		{500, dns.RcodeSuccess, "NOERROR true 30"},
		{1, dns.RcodeNameError, "NXDOMAIN false 1"},
		{1, dns.RcodeBadCookie, "SERVFAIL false 1"}, // the rcode needs an OPT
	} {
		records.Store(tc.records)
		rcode.Store(tc.rcode)
		wire := s.exchangeWire(query)
		answer := unpack(t, wire)
		if got := fmt.Sprint(dns.RcodeToString[answer.Rcode], " ", answer.Truncated, " ", len(answer.Answer)); got != tc.want || len(answer.Extra) != 0 || len(wire) > dns.MinMsgSize {
			t.Errorf("%d records: got %s in %d bytes, want %s", tc.records, got, len(wire), tc.want)
		}
		q, context := up.last(t)
		if opt := q.IsEdns0(); context == nil || opt.UDPSize() != stampSize || opt.Do() || len(opt.Option) != 1 {
			t.Errorf("the upstream got\n%s", q)
		}
		if r := s.query(i + 1); r.BufSize != dns.MinMsgSize || r.DNSSECOK || *r.ResponseSize > dns.MinMsgSize {
			t.Errorf("bufsize %d, response size %d", r.BufSize, *r.ResponseSize)
		}
	}
}

// An option that an upstream sends unasked stays here, too, whether the query is
// recorded or not.
func TestUnaskedOption(t *testing.T) {
	for _, plugins := range []string{"dnstrace {\n output file $RECORDS\n}", stampAll, "dnstrace example.net {\n output file $RECORDS\n}",
		"dnstrace example.net {\n output file $RECORDS\n stamp all\n}", "dnstrace {\n output file $RECORDS\n sample 0\n}"} {
		up := newCapture(t, func(q *dns.Msg) *dns.Msg {
			m := echoA(q)
			m.Extra = nil
			m.SetEdns0(1232, true)
			local := &dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: trace.Traceparent{TraceID: trace.TraceID{1}}.Append(nil)}
			m.IsEdns0().Option = []dns.EDNS0{local, &dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "6869"}}
			return m
		})
		s := start(t, ".:0 {\n bind 127.0.0.1\n"+plugins+"\n forward . "+up.addr+"\n}")
		answer := unpack(t, s.exchangeWire(wireQuery("")))
		if trace.HasTraceparent(answer, trace.DefaultOptionCode) || !trace.HasTraceparent(answer, dns.EDNS0NSID) {
			t.Errorf("%s: the client got\n%s", plugins, answer)
		}
	}
}

// Whatever a client sends: its option ends here, the rest stays, and the server
// keeps what it has.
func FuzzReceive(f *testing.F) {
	for _, options := range []string{"", wireCookie, wireOption(data27), wireOption(data18) + wireCookie, wireOption("") + wireOption("x"),
		wireOption(data27) + wireOption(data27), wireOption(data27[:5]), strings.Repeat(wireOption(data27), 200)} {
		f.Add(wireQuery(options))
	}
	d := &Dnstrace{accept: networks{netip.MustParsePrefix("127.0.0.0/8")}, optionCode: trace.DefaultOptionCode}
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := new(dns.Msg)
		if r.Unpack(wire) != nil {
			return
		}
		before := r.String()
		got := d.receive(t.Context(), discarding{}, r)
		if r.String() != before {
			t.Errorf("the message is\n%s\nit was\n%s", r, before)
		}
		if trace.Signed(r) && got != r || !trace.Signed(r) && trace.HasTraceparent(got, d.optionCode) {
			t.Errorf("passed on\n%s", got)
		}
		want := r.Copy()
		for _, rr := range want.Extra {
			if opt, ok := rr.(*dns.OPT); ok && !trace.Signed(r) {
				opt.Option = slices.DeleteFunc(opt.Option, func(o dns.EDNS0) bool { return o.Option() == d.optionCode })
			}
		}
		if got.String() != want.String() {
			t.Errorf("passed on\n%s\nwant\n%s", got, want)
		}
	})
}
