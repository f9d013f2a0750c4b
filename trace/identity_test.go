package trace

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func wireName(t *testing.T, name string) []byte {
	t.Helper()
	b := make([]byte, 255)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestFlowVectors(t *testing.T) {
	for _, tc := range []struct {
		transport uint8
		client    string
		id        uint16
		qtype     uint16
		name      string
		want      string
	}{
		{TransportUDP, "10.244.0.4:50202", 0xc1a1, dns.TypeA, "Example.COM.", "41156cb99fd7e9f79b794954"},
		{TransportUDP, "[::ffff:10.244.0.4]:50202", 0xc1a1, dns.TypeA, "example.com.", "41156cb99fd7e9f79b794954"},
		{TransportTCP, "[fd00:10:244::4]:44601", 0xa9ba, dns.TypeAAAA, "example.com.", "880ca82742bca2d1c329e410"},
		{TransportUDP, "10.244.0.4:1", 0, dns.TypeNS, ".", "b248aa3c33ea8e724f089358"},
	} {
		got := NewFlow(tc.transport, netip.MustParseAddrPort(tc.client), tc.id, tc.qtype, dns.ClassINET, wireName(t, tc.name))
		if got.String() != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.client, tc.name, got, tc.want)
		}
	}
	// An attempt to connect, without a question.
	if got := NewFlow(TransportTCP, netip.MustParseAddrPort("10.244.0.4:44601"), 0, 0, 0, nil).String(); got != "6c1ede615009fe3159c908cf" {
		t.Errorf("without a question: got %s", got)
	}
}

func TestTraceIDStepsOfTime(t *testing.T) {
	var flow Flow
	if err := flow.UnmarshalText([]byte("41156cb99fd7e9f79b794954")); err != nil {
		t.Fatal(err)
	}
	step := time.Unix(7_000_000*StepSeconds, 0)
	before, at := NewTraceID(step.Add(-time.Nanosecond), flow), NewTraceID(step, flow)
	if want := "6acfc00041156cb99fd7e9f79b794954"; at.String() != want {
		t.Errorf("got %s, want %s", at, want)
	}
	last := NewTraceID(step.Add(StepSeconds*time.Second-1), flow)
	if at != last {
		t.Errorf("one step has two ids: %s and %s", at, last)
	}
	other := flow
	other[0]++
	for _, tc := range []struct {
		a, b TraceID
		want bool
	}{
		{before, at, true},
		{at, before, true},
		{at, at, true},
		{NewTraceID(step.Add(-StepSeconds*time.Second-1), flow), at, false},
		{at, NewTraceID(step, other), false},
	} {
		if got := SameLookup(tc.a, tc.b); got != tc.want {
			t.Errorf("SameLookup(%s, %s) = %v", tc.a, tc.b, got)
		}
	}
	if NewSpanID(before, SpanID{}, RoleServer, 0) != NewSpanID(at, SpanID{}, RoleServer, 0) {
		t.Error("span ids differ on the two sides of a step")
	}
	if NewSpanID(at, SpanID{}, RoleAttempt, 1) == NewSpanID(at, SpanID{}, RoleAttempt, 2) {
		t.Error("two attempts have one span id")
	}
}

func TestParseTraceIDErrors(t *testing.T) {
	for _, s := range []string{"", "abc", "zz112233445566778899aabbccddeeff"} {
		if _, err := ParseTraceID(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}
