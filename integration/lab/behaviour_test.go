package lab

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

// What each way to spoil an answer makes of it.
func TestMangle(t *testing.T) {
	query := new(dns.Msg).SetQuestion("Name.Test.", dns.TypeA)
	query.Id = 0x1234
	wire, err := Behaviour{}.reply(query, "udp").Pack()
	if err != nil {
		t.Fatal(err)
	}
	const readable = "1234 Name.Test. 1"
	for _, tc := range []struct {
		name   string
		mangle func([]byte) []byte
		want   string // ID, question and answers; or that it cannot be read
	}{
		{"nothing", func(b []byte) []byte { return b }, readable},
		{"malformed", Malformed, "unreadable"},
		{"cut", Cut, "unreadable"},
		{"other ID", OtherID, "4734 Name.Test. 1"},
		{"other question", OtherQuestion, "1234 Lame.Test. 1"},
		{"lower case", LowerCase, "1234 name.test. 1"},
	} {
		before := string(wire)
		got := "unreadable"
		var m dns.Msg
		if m.Unpack(tc.mangle(wire)) == nil {
			got = fmt.Sprintf("%04x %s %d", m.Id, m.Question[0].Name, len(m.Answer))
		}
		if got != tc.want {
			t.Errorf("%s: %s, expected %s", tc.name, got, tc.want)
		}
		if string(wire) != before {
			t.Errorf("%s changes its argument", tc.name)
		}
	}
}

// What is in an answer, by behaviour, type and transport.
func TestReply(t *testing.T) {
	for _, tc := range []struct {
		name      string
		behaviour Behaviour
		network   string
		answers   int
		truncated bool
	}{
		{"one", Behaviour{}, "udp", 1, false},
		{"no data", Behaviour{Empty: true}, "udp", 0, false},
		{"truncated", Behaviour{Truncated: true}, "udp", 0, true},
		{"truncated, over TCP", Behaviour{Truncated: true}, "tcp", 1, false},
		{"rate limited", Behaviour{Slip: 2}, "udp", 0, true},
		{"rate limited, over TCP", Behaviour{Slip: 2}, "tcp", 1, false},
		{"some", Behaviour{Records: 3}, "udp", 3, false},
		{"many, over TCP", Behaviour{Records: 60}, "tcp", 60, false},
	} {
		m := tc.behaviour.reply(new(dns.Msg).SetQuestion("name.test.", dns.TypeA), tc.network)
		if len(m.Answer) != tc.answers || m.Truncated != tc.truncated {
			t.Errorf("%s: %d records, truncated %t", tc.name, len(m.Answer), m.Truncated)
		}
	}
	m := Behaviour{Records: 60}.reply(new(dns.Msg).SetQuestion("name.test.", dns.TypeA), "udp")
	if !m.Truncated || len(m.Answer) == 0 || m.Len() > dns.MinMsgSize {
		t.Errorf("many: %d records in %d bytes, truncated %t", len(m.Answer), m.Len(), m.Truncated)
	}
}

// Which queries are answered, where not all are.
func TestBehave(t *testing.T) {
	s := new(Server)
	s.Set("slip.test.", Behaviour{Slip: 3})
	s.Set("limited.test.", Behaviour{Limit: 1})
	s.Set("typed.test.", Behaviour{Type: dns.TypeAAAA, Silent: true})
	s.Set("udp.test.", Behaviour{Network: "udp", Silent: true})
	var done func()
	for _, tc := range []struct {
		name, network string
		qtype         uint16
		want          string
	}{
		{"a.slip.test.", "udp", dns.TypeA, "silent"},
		{"a.slip.test.", "udp", dns.TypeA, "silent"},
		{"a.slip.test.", "udp", dns.TypeAAAA, "silent"}, // counted apart
		{"a.slip.test.", "udp", dns.TypeA, "answered"},
		{"a.slip.test.", "tcp", dns.TypeA, "answered"},
		{"a.limited.test.", "udp", dns.TypeA, "answered"},
		{"b.limited.test.", "udp", dns.TypeA, "refused"},
		{"typed.test.", "udp", dns.TypeAAAA, "silent"},
		{"typed.test.", "udp", dns.TypeA, "answered"},
		{"udp.test.", "udp", dns.TypeA, "silent"},
		{"udp.test.", "tcp", dns.TypeA, "answered"},
	} {
		b, after := s.behave(&Received{Name: tc.name, Network: tc.network, Type: tc.qtype})
		if tc.name == "a.limited.test." {
			done = after
		} else {
			after()
		}
		got := "answered"
		switch {
		case b.Silent:
			got = "silent"
		case b.Rcode == dns.RcodeRefused:
			got = "refused"
		}
		if got != tc.want {
			t.Errorf("%s over %s: %s, expected %s", tc.name, tc.network, got, tc.want)
		}
	}
	done()
	if b, _ := s.behave(&Received{Name: "c.limited.test.", Network: "udp", Type: dns.TypeA}); b.Rcode != dns.RcodeSuccess {
		t.Error("refused, though no other query is under way")
	}
}
