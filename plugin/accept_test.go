package dnstrace

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	clog "log"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/pb"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
)

// The option as draft-edns-otel-trace-ids has it: version and reserved, trace
// id, span id, flags.
const (
	foreignTrace = "\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36"
	foreignSpan  = "\x00\xf0\x67\xaa\x0b\xa9\x02\xb7"
	data27       = "\x00\x00" + foreignTrace + foreignSpan + "\x01"
	data26       = "\x00\x00" + foreignTrace + foreignSpan
	data18       = "\x00\x00" + foreignTrace
)

func counted() string {
	var all []string
	for _, result := range []string{optionAccepted, optionIgnored, optionMalformed} {
		all = append(all, fmt.Sprint(value(optionsSeen.WithLabelValues(labels(result)...))))
	}
	return strings.Join(all, " ")
}

// resetOptions sets the counters to zero.
func resetOptions(t *testing.T) {
	optionsSeen.Reset()
	t.Cleanup(optionsSeen.Reset)
}

// Byte-exact options of clients, trusted or not; none of them gets through.
func TestAccept(t *testing.T) {
	for _, tc := range []struct {
		name, accept, options string
		parent                string // in hexadecimal; empty for none
		counted               string // accepted, ignored, malformed
	}{
		{"27 bytes", "127.0.0.0/8", wireOption(data27), "00f067aa0ba902b7", "1 0 0"},
		{"26 bytes", "127.0.0.0/8", wireOption(data26), "00f067aa0ba902b7", "1 0 0"},
		{"18 bytes", "127.0.0.0/8", wireOption(data18), "", "1 0 0"},
		{"zero span", "127.0.0.0/8", wireOption(data18 + strings.Repeat("\x00", 8)), "", "1 0 0"},
		{"reserved byte", "127.0.0.0/8", wireOption("\x00\xff" + data27[2:]), "00f067aa0ba902b7", "1 0 0"},
		{"among others", "::1/128 127.0.0.1/32", wireCookie + wireOption(data27) + wireOption("x", 65001), "00f067aa0ba902b7", "1 0 0"},
		{"other client", "127.0.0.2/32 ::/0", wireOption(data27), "-", "0 1 0"},
		{"malformed, other client", "192.0.2.0/24", wireOption("x"), "-", "0 1 0"},
		{"nobody accepted", "", wireOption(data27), "-", "0 1 0"},
		{"empty", "127.0.0.0/8", wireOption(""), "-", "0 0 1"},
		{"17 bytes", "127.0.0.0/8", wireOption(data18[:17]), "-", "0 0 1"},
		{"25 bytes", "127.0.0.0/8", wireOption(data26[:25]), "-", "0 0 1"},
		{"28 bytes", "127.0.0.0/8", wireOption(data27 + "\x00"), "-", "0 0 1"},
		{"version 1", "127.0.0.0/8", wireOption("\x01" + data27[1:]), "-", "0 0 1"},
		{"zero trace", "127.0.0.0/8", wireOption(strings.Repeat("\x00", 18) + foreignSpan), "-", "0 0 1"},
		{"two", "127.0.0.0/8", wireOption(data27) + wireOption(data27), "-", "0 0 1"},
		{"two, one malformed", "127.0.0.0/8", wireOption(data27) + wireOption("x"), "-", "0 0 1"},
		{"other code", "127.0.0.0/8", wireOption(data27, 65501), "-", "0 0 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resetOptions(t)
			if tc.accept != "" {
				tc.accept = "accept " + tc.accept
			}
			up := newCapture(t, echoA)
			s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n"+tc.accept+"\n}\n forward . "+up.addr+"\n}")
			answer := s.exchangeWire(wireQuery(tc.options))
			q := s.query(1)
			checkIdentity(t, q, tc.parent)
			if got := counted(); got != tc.counted {
				t.Errorf("counted %s, want %s", got, tc.counted)
			}
			if m, context := up.last(t); context != nil || trace.HasTraceparent(m, trace.DefaultOptionCode) {
				t.Errorf("the upstream got\n%s", m)
			}
			if bytes.Contains(answer, []byte("\xff\xdc")) {
				t.Errorf("the client got\n%x", answer)
			}
		})
	}
}

// checkIdentity checks the ids of a query with an option; parent is "-" where
// it is not adopted.
func checkIdentity(t *testing.T, q *trace.Query, parent string) {
	t.Helper()
	flow := trace.NewFlow(trace.TransportUDP, addrPort(q), 0x1234, dns.TypeA, dns.ClassINET, []byte("\x07example\x03org\x00"))
	if q.Flow != flow {
		t.Errorf("flow %s, want %s", q.Flow, flow)
	}
	if parent == "-" {
		above := trace.NewSpanID(q.TraceID, trace.SpanID{}, trace.RoleClient, 0)
		if q.TraceID.Flow() != flow || q.ParentSpanID == nil || *q.ParentSpanID != above {
			t.Errorf("trace %s, parent %s", q.TraceID, q.ParentSpanID)
		}
		return
	}
	got, above := "", trace.SpanID{}
	if q.ParentSpanID != nil {
		got, above = q.ParentSpanID.String(), *q.ParentSpanID
	}
	if q.TraceID != trace.TraceID([]byte(foreignTrace)) || got != parent || q.SpanID != trace.NewSpanID(q.TraceID, above, trace.RoleServer, 0) {
		t.Errorf("trace %s, span %s, parent %q", q.TraceID, q.SpanID, got)
	}
}

// Plugins before dnstrace see the adopted id, too; and the option may have
// another code.
func TestAcceptMetadata(t *testing.T) {
	resetOptions(t)
	var out syncBuffer
	clog.SetOutput(&out)
	defer clog.SetOutput(os.Stderr)
	s := start(t, `.:0 {
		bind 127.0.0.1
		metadata
		log . "trace={/dnstrace/trace_id} span={/dnstrace/span_id}"
		dnstrace {
			output file $RECORDS
			accept 127.0.0.0/8
			option-code 1234
		}
		whoami
	}`)
	s.exchangeWire(wireQuery(wireOption(data27, 1234)))
	q := s.query(1)
	checkIdentity(t, q, "00f067aa0ba902b7")
	want := fmt.Sprintf("trace=4bf92f3577b34da6a3ce929d0e0e4736 span=%s", q.SpanID)
	eventually(t, func() bool { return strings.Contains(out.String(), want) })
	if got := counted(); got != "1 0 0" {
		t.Errorf("counted %s", got)
	}
}

// tsigQuery returns a signed query that has an option of ours, and its OPT.
func tsigQuery(t *testing.T) []byte {
	t.Helper()
	m := unpack(t, wireQuery(wireOption(data27)))
	m.SetTsig("key.example.", dns.HmacSHA256, 300, time.Now().Unix())
	wire, _, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString([]byte("secret")), "", false)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// A signed query goes the way it would go without dnstrace. forward cannot send
// it on over UDP: it takes the signature off.
func TestSignedQueryThroughForward(t *testing.T) {
	resetOptions(t)
	query := tsigQuery(t)
	var got [2][]byte
	for i, directive := range []string{"", strings.Replace(acceptLoopback, "accept", "stamp all\naccept", 1)} {
		up := newCapture(t, echoA)
		s := start(t, ".:0 {\n bind 127.0.0.1\n"+directive+"\n forward . "+up.addr+"\n}")
		s.exchangeWire(query)
		seen := up.seen()
		got[i] = seen[len(seen)-1][2:]
		if directive == "" {
			continue
		}
		// Reading the option is no change.
		if q := s.query(1); q.Stamped || counted() != "1 0 0" {
			t.Errorf("stamped %t, counted %s", q.Stamped, counted())
		} else {
			checkIdentity(t, q, "00f067aa0ba902b7")
		}
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Errorf("the upstream got\n%x, without dnstrace\n%x", got[1], got[0])
	}
}

// The handler after the plugin gets a signed query untouched.
func TestSignedQuery(t *testing.T) {
	query := tsigQuery(t)
	r := unpack(t, query)
	d := &Dnstrace{zones: []string{"."}, serverZones: []string{"."}, stamp: stampPolicy{all: true}, optionCode: trace.DefaultOptionCode}
	var passed *dns.Msg
	chained(d, forwardLike(func(m *dns.Msg) { passed = m }))
	if _, err := d.ServeDNS(t.Context(), discarding{}, r); err != nil {
		t.Fatal(err)
	}
	if passed != r || !bytes.Equal(pack(t, passed), query) {
		t.Errorf("passed on\n%s", passed)
	}
}

// UDP clients of IPv6 link-local addresses have a zone in their address.
func TestAcceptZone(t *testing.T) {
	c := caddy.NewTestController("dns", "dnstrace {\n accept fe80::/10 192.0.2.0/24\n}")
	d, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"fe80::1%eth0": true, "fe80::1": true, "fd00::1": false, "192.0.2.1": true, "::ffff:192.0.2.1": true} {
		client, _ := address(&net.UDPAddr{IP: net.ParseIP(strings.Split(addr, "%")[0]), Zone: strings.TrimPrefix(addr, "fe80::1%"), Port: 1})
		if got := d.accept.contain(client.Addr()); got != want {
			t.Errorf("%s: %t", addr, got)
		}
	}
}

// forwardLike is a handler that goes by the name of forward.
type forwardLike func(*dns.Msg)

func (forwardLike) Name() string { return forwardPlugin }

func (f forwardLike) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	f(r)
	return dns.RcodeSuccess, nil
}

// wireServer is a gRPC upstream that keeps the last query as it came.
type wireServer struct {
	pb.UnimplementedDnsServiceServer

	last atomic.Pointer[[]byte]
}

func (s *wireServer) Query(_ context.Context, in *pb.DnsPacket) (*pb.DnsPacket, error) {
	s.last.Store(&in.Msg)
	q := new(dns.Msg)
	if err := q.Unpack(in.Msg); err != nil {
		return nil, err
	}
	wire, err := new(dns.Msg).SetRcode(q, dns.RcodeNotAuth).Pack()
	return &pb.DnsPacket{Msg: wire}, err
}

// grpc sends a signed query on to the byte, and an unsigned one with our option.
func TestSignedQueryThroughGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up, server := &wireServer{}, grpc.NewServer()
	pb.RegisterDnsServiceServer(server, up)
	go func() {
		if err := server.Serve(listener); err != nil {
			t.Error(err)
		}
	}()
	defer server.Stop()
	s := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+"\n grpc . "+listener.Addr().String()+"\n}")
	query := tsigQuery(t)
	s.exchangeWire(query)
	if got := *up.last.Load(); !bytes.Equal(got, query) || s.query(1).Stamped {
		t.Errorf("signed: the upstream got\n%x, the client sent\n%x", got, query)
	}
	s.exchangeWire(wireQuery(wireCookie))
	q := s.query(2)
	own := trace.Traceparent{TraceID: q.TraceID, SpanID: attemptSpan(q, 1), Flags: trace.FlagSampled}
	if got, want := *up.last.Load(), wireQuery(wireCookie+wireOption(string(own.Append(nil)))); !bytes.Equal(got, want) || !q.Stamped {
		t.Errorf("unsigned: the upstream got\n%x, want\n%x", got, want)
	}
}

// A server block goes by its own list, also where another one of the same zone
// was looked at before.
func TestAcceptOfAnotherView(t *testing.T) {
	const block = `.:0 {
		bind 127.0.0.1
		metadata
		view %s {
			expr name() == '%s'
		}
		dnstrace {
			output file $RECORDS
			accept %s
		}
		whoami
	}
	`
	for _, tc := range []struct{ first, second, parent string }{
		{"127.0.0.0/8", "192.0.2.0/24", "-"},
		{"192.0.2.0/24", "127.0.0.0/8", "00f067aa0ba902b7"},
	} {
		s := start(t, fmt.Sprintf(block, "one", "example.net.", tc.first)+fmt.Sprintf(block, "two", "example.org.", tc.second))
		s.exchangeWire(wireQuery(wireOption(data27)))
		checkIdentity(t, s.query(1), tc.parent)
	}
}
