package dnstrace

import (
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// secureUpstream is a CoreDNS that is asked over a secure transport, and how to
// trust it.
func secureUpstream(t *testing.T, scheme string) (back *server, trust string) {
	t.Helper()
	cert, key, _ := certificate(t)
	back = start(t, scheme+`.:0 {
		tls `+cert+` `+key+`
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		template IN A example.org {
			answer "{{ .Name }} 60 IN A 192.0.2.1"
		}
		template IN A missing.org {
			rcode NXDOMAIN
		}
	}`)
	return back, "tls " + cert + "\n tls_servername dns.test"
}

// One CoreDNS asks another over every transport that forward has.
func TestForwardTransports(t *testing.T) {
	for _, tc := range []struct{ scheme, protocol string }{
		{"tls://", "tcp"}, {"https://", "tcp"}, {"quic://", "udp"},
	} {
		corefile := func(addr, trust string) string {
			return `.:0 {
				bind 127.0.0.1
				dnstrace {
					output file $RECORDS
				}
				forward . ` + tc.scheme + addr + ` {
					` + trust + `
				}
			}`
		}
		if !supported(t, corefile("127.0.0.1:1", "")) {
			continue
		}
		t.Run(tc.scheme, func(t *testing.T) {
			back, trust := secureUpstream(t, tc.scheme)
			s := start(t, corefile(back.addr, trust))
			for n, tc := range []struct {
				name, rcode string
				qtype       uint16
				outcome     string
			}{
				{"example.org.", "NOERROR", dns.TypeA, trace.OutcomeOK},
				{"missing.org.", "NXDOMAIN", dns.TypeA, trace.OutcomeOK},
			} {
				s.ask(tc.name, tc.qtype)
				q := s.query(n + 1)
				// The address is the one of the Corefile, without its scheme.
				if got, want := attempts(q.Upstreams), "1 "+tc.outcome+" "+back.addr; got != want || q.RCode != tc.rcode || q.Protocol != "udp" {
					t.Errorf("attempts %s, want %s; %s over %s", got, want, q.RCode, q.Protocol)
				}
				checkTimes(t, q)
			}
			if q := back.query(2); q.Protocol != tc.protocol || q.QName != "missing.org." {
				t.Errorf("upstream: %s over %s", q.QName, q.Protocol)
			}
		})
	}
}

// An upstream whose certificate nobody trusts.
func TestForwardUntrusted(t *testing.T) {
	back, _ := secureUpstream(t, "tls://")
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . tls://`+back.addr+` {
			max_connect_attempts 2
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	last := q.Upstreams[len(q.Upstreams)-1]
	if q.Outcome != trace.OutcomeError || last.Outcome != trace.OutcomeError || !strings.Contains(last.Error, "x509") {
		t.Errorf("%s, attempts %s: %s", q.Outcome, attempts(q.Upstreams), last.Error)
	}
}

// grpc does not say whom it asks, unless it is patched. It is known where its order is.
func TestGRPC(t *testing.T) {
	back, trust := secureUpstream(t, "grpc://")
	down := refusing(t)
	for _, tc := range []struct {
		to, policy string
		name       string
		want       string // outcome, rcode and attempts
	}{
		{back.addr, "", "example.org.", "answered NOERROR 1 ok " + back.addr},
		{back.addr, "", "missing.org.", "answered NXDOMAIN 1 ok " + back.addr},
		{down + " " + back.addr, "policy sequential", "example.org.", "answered NOERROR 1 error " + down + ", 2 ok " + back.addr},
		{down, "", "example.org.", "error SERVFAIL 1 error " + down},
		{back.addr + " " + back.addr, "policy round_robin", "example.org.", "answered NOERROR 1 ok " + reported(back.addr, "")},
		{back.addr, "fallthrough", "example.org.", "answered NOERROR 1 ok " + back.addr},
		// It went on: for NXDOMAIN, or because nobody answered.
		{back.addr, "fallthrough", "missing.org.", "answered NOERROR 1  " + back.addr},
	} {
		s := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
			}
			grpc . `+tc.to+` {
				`+trust+`
				`+tc.policy+`
			}
			whoami
		}`)
		s.ask(tc.name, dns.TypeA)
		q := s.query(1)
		if got := q.Outcome + " " + q.RCode + " " + attempts(q.Upstreams); got != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.to, tc.policy, got, tc.want)
		}
		if q.Upstreams[0].Plugin != "grpc" || q.Upstreams[0].Duration == nil || !strings.HasPrefix(hops(q.Hops), "grpc") {
			t.Errorf("%s %s: attempt %+v, hops %s", tc.to, tc.policy, q.Upstreams[0], hops(q.Hops))
		}
		checkTimes(t, q)
	}
}

// A query without dnstrace leaves grpc as it is.
func TestGRPCWithoutRecord(t *testing.T) {
	back, trust := secureUpstream(t, "grpc://")
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace example.net {
			output file $RECORDS
		}
		grpc . `+back.addr+` {
			`+trust+`
		}
	}`)
	if answer := s.ask("example.org.", dns.TypeA); len(answer.Answer) != 1 {
		t.Errorf("the answer is %s", answer)
	}
	back.query(1)
	s.wait(0)
}
