package dnstrace

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// relay is a CoreDNS without dnstrace, asked over a secure transport, which
// passes on to up what it gets, unknown options included.
func relay(t *testing.T, scheme, up string) (addr, trust string) {
	t.Helper()
	cert, key, _ := certificate(t)
	s := start(t, scheme+`.:0 {
		tls `+cert+` `+key+`
		bind 127.0.0.1
		forward . `+up+` {
			prefer_udp
		}
	}`)
	return s.addr, "tls " + cert + "\n tls_servername dns.test"
}

// Upstreams over DoT, DoH and DoQ get the option as those over UDP do: each
// attempt its own, and none that is outside the list.
func TestStampSecureUpstreams(t *testing.T) {
	for _, scheme := range []string{"tls://", "https://", "quic://"} {
		if !supported(t, ".:0 {\n forward . "+scheme+"127.0.0.1:1\n}") {
			continue // CoreDNS 1.13 knows tls:// only
		}
		t.Run(scheme, func(t *testing.T) {
			for _, tc := range []struct {
				stamp   string
				stamped bool
			}{
				{"all", true}, {"127.0.0.1/32", true}, {"127.0.0.2/32 ::/0", false}, {"off", false},
			} {
				up := newCapture(t, echoA)
				addr, trust := relay(t, scheme, up.addr)
				s := start(t, `.:0 {
					bind 127.0.0.1
					dnstrace {
						output file $RECORDS
						stamp `+tc.stamp+`
					}
					forward . `+scheme+addr+` {
						`+trust+`
					}
				}`)
				for n := range 2 { // the second one over the same connection
					answer := s.ask("example.org.", dns.TypeA)
					checkSecureStamp(t, up, s.query(n+1), answer, tc.stamp, tc.stamped)
				}
			}
		})
	}
}

// checkSecureStamp checks what the upstream got for a query, and the client back.
func checkSecureStamp(t *testing.T, up *capture, q *trace.Query, answer *dns.Msg, stamp string, stamped bool) {
	t.Helper()
	m, context := up.last(t)
	want := trace.Traceparent{TraceID: q.TraceID, SpanID: attemptSpan(q, 1), Flags: trace.FlagSampled}
	if (context != nil) != stamped || stamped && *context != want || q.Stamped != stamped {
		t.Errorf("stamp %s: stamped %t, the upstream got %v, want %s:\n%s", stamp, q.Stamped, context, want, m)
	}
	if opt := m.IsEdns0(); stamped && (len(opt.Option) != 1 || opt.Do()) || !stamped && opt != nil {
		t.Errorf("stamp %s: the upstream got\n%s", stamp, m)
	}
	if len(answer.Answer) != 1 || len(answer.Extra) != 0 {
		t.Errorf("stamp %s: the client got\n%s", stamp, answer)
	}
	if len(q.Upstreams) != 1 || q.Upstreams[0].Outcome != trace.OutcomeOK {
		t.Errorf("stamp %s: attempts %s", stamp, attempts(q.Upstreams))
	}
}

// Servers in a row that talk over secure transports make one trace.
func TestChainSecure(t *testing.T) {
	for _, scheme := range []string{"tls://", "https://", "quic://", "grpc://"} {
		forward := "forward . " + scheme
		if scheme == "grpc://" {
			forward = "grpc . "
		}
		if !supported(t, ".:0 {\n "+forward+"127.0.0.1:1\n}") {
			continue
		}
		t.Run(scheme, func(t *testing.T) {
			cert, key, _ := certificate(t)
			back := start(t, scheme+".:0 {\n tls "+cert+" "+key+"\n bind 127.0.0.1\n"+acceptLoopback+"\n whoami\n}")
			front := start(t, ".:0 {\n bind 127.0.0.1\n"+stampAll+"\n "+forward+back.addr+" {\n tls "+cert+"\n tls_servername dns.test\n}\n}")
			for n := range 2 {
				front.ask("example.org.", dns.TypeA)
				q, child := front.query(n+1), back.query(n+1)
				parent := attemptSpan(q, 1)
				if !q.Stamped || child.TraceID != q.TraceID || child.ParentSpanID == nil || *child.ParentSpanID != parent ||
					child.SpanID != trace.NewSpanID(q.TraceID, parent, trace.RoleServer, 0) || child.Flow == q.Flow {
					t.Errorf("trace %s, span %s under %v; want trace %s under %s", child.TraceID, child.SpanID, child.ParentSpanID, q.TraceID, parent)
				}
			}
		})
	}
}
