package diagnose

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// failed is an attempt that ended with an error.
func failed(n int, took time.Duration, words string, ex *trace.Exchange) trace.Upstream {
	u := trace.Upstream{Attempt: &trace.Attempt{Attempt: n, Address: "192.0.2.53:853", Outcome: trace.OutcomeError, Duration: trace.SecondsPtr(took), Error: words}, Join: trace.JoinNone}
	if ex != nil {
		u.Exchange, u.Join = ex, trace.JoinExact
	}
	return u
}

// unserved is a lookup that failed because of its upstreams.
func unserved(upstreams ...trace.Upstream) *trace.Trace {
	client := respondedAfter(time.Second, "SERVFAIL")
	return &trace.Trace{Header: client.Header, Exchange: client, Outcome: client.Outcome, RCode: "SERVFAIL", Upstreams: upstreams}
}

// CoreDNS tells the error of its last attempt: that is the reason of those before it that
// ended alike, and what they cost is the time of all.
func TestReasonOfSeveralAttempts(t *testing.T) {
	for words, want := range map[string][]string{
		"dial tcp 192.0.2.53:853: connect: no route to host":                               {"could not be asked (no route to host), 2 times, which cost the lookup 30.0 ms.", "dig +tls"},
		"tls: failed to verify certificate: x509: certificate signed by unknown authority": {"(certificate signed by unknown authority), 2 times", "tls_servername"},
	} {
		found := New().Trace(unserved(failed(1, 10*time.Millisecond, "", nil), failed(2, 20*time.Millisecond, words, nil)))
		if codesOf(found) != UpstreamError {
			t.Fatalf("%s: %+v", words, found)
		}
		for _, part := range want {
			if all := found[0].Summary + found[0].Advice; !strings.Contains(all, part) {
				t.Errorf("%q is missing in %q", part, all)
			}
		}
	}
}

// A server that ends the connection on which it was asked is not silent, and that is one
// finding.
func TestConnectionEndedWithoutAnAnswer(t *testing.T) {
	ended := func() *trace.Exchange {
		ex := asked()
		ex.Protocol = "tcp"
		ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
		ex.Milestones.Response.Arrived = trace.NotSeen
		return ex
	}
	found := New().Trace(unserved(failed(1, time.Millisecond, "", ended()), failed(2, time.Millisecond, "EOF", ended())))
	if codesOf(found) != UpstreamError || !strings.Contains(found[0].Summary, "was reached, and CoreDNS got no answer from it (EOF), 2 times") {
		t.Errorf("%+v", found)
	}
}

// An upstream closes an idle connection as CoreDNS asks on it, and answers the next attempt: that
// is no failure of its. One that resets every connection, or of which another makes up, has one.
func TestConnectionResetAsItIsUsed(t *testing.T) {
	reset := func() *trace.Exchange {
		ex := asked()
		ex.Protocol = "tcp"
		ex.Milestones.Query.Arrived = see(ex, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
		ex.Milestones.Response.Arrived = trace.NotSeen
		ex.Reset = &trace.Reset{Src: netip.AddrPortFrom(ex.ServerIP, ex.ServerPort), Offset: trace.Seconds(2 * time.Millisecond)}
		return ex
	}
	answered := func(address string) trace.Upstream {
		u := failed(2, time.Millisecond, "", respondedAfter(time.Millisecond, "NOERROR"))
		u.Attempt.Outcome, u.Attempt.Address = trace.OutcomeOK, address
		return u
	}
	for name, tc := range map[string]struct {
		next trace.Upstream
		want string
	}{
		"it answers":      {answered("192.0.2.53:853"), ""},
		"another answers": {answered("192.0.2.54:853"), UpstreamError},
		"reset again":     {failed(2, time.Millisecond, "", reset()), UpstreamError},
	} {
		tr := unserved(failed(1, time.Millisecond, "", reset()), tc.next)
		tr.RCode, tr.Exchange.RCode = "NOERROR", "NOERROR"
		if got := codesOf(New().Trace(tr)); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// An upstream that is asked over TLS and does not speak it, or in plain DNS where it speaks TLS, fails
// some attempts with an error and lets others time out: that is one finding, which names it.
func TestOneFindingForWhatIsNoTLS(t *testing.T) {
	timeout := func(n int) trace.Upstream {
		u := failed(n, 2*time.Second, "", nil)
		u.Attempt.Address, u.Attempt.Outcome = "192.0.2.53:53", trace.OutcomeTimeout
		return u
	}
	ended := func(n int, words, address string) trace.Upstream {
		u := failed(n, 2*time.Second, words, nil)
		u.Attempt.Address = address
		return u
	}
	query := asked()
	query.Protocol, query.ServerPort = "tcp", 853
	query.Milestones.Query.Arrived = see(query, trace.MessageQuery, trace.DirectionDelivered, "server", time.Millisecond)
	dropped := asked()
	dropped.Outcome, dropped.ServerPort = trace.OutcomeDropped, 853
	dropped.Drops = []trace.Drop{dropAt(trace.MessageQuery, "NO_SOCKET", "__udp4_lib_rcv", "server", time.Millisecond)}
	at53 := func(u trace.Upstream) trace.Upstream {
		ex := *u.Exchange
		ex.ServerPort, u.Exchange, u.Attempt.Address = 53, &ex, "192.0.2.53:53"
		return u
	}
	for name, tc := range map[string]struct {
		upstreams []trace.Upstream
		code      string
		want      []string
	}{
		"TLS, and it closes": {
			[]trace.Upstream{timeout(1), ended(2, "EOF", "192.0.2.53:53")}, UpstreamError,
			[]string{"192.0.2.53:53 could not be asked (EOF), after 1 timeout, which cost the lookup 1.00 s.", "does it speak TLS at that port"},
		},
		"TLS, and it says something else": {
			[]trace.Upstream{ended(1, "", "192.0.2.53:53"), ended(2, "tls: first record does not look like a TLS handshake", "192.0.2.53:53")}, UpstreamError,
			[]string{"was asked over TLS, and does not speak it there (first record does not look like a TLS handshake), 2 times", "take `tls://` out"},
		},
		"TLS, and it waits": {
			[]trace.Upstream{timeout(1), timeout(2)}, UpstreamTimeout,
			[]string{"192.0.2.53:53 did not answer, 2 times", "No plain query to it was seen. If `forward` has `tls://`"},
		},
		"plain, over UDP": {
			[]trace.Upstream{ended(1, "read udp 192.0.2.1:4000->192.0.2.53:853: read: connection refused", "192.0.2.53:853")}, UpstreamError,
			[]string{"was asked without TLS at port 853, which is for TLS (connection refused)", "over TLS (`tls://` in `forward`)"},
		},
		"plain, over TCP": {
			[]trace.Upstream{failed(1, time.Millisecond, "EOF", query)}, UpstreamError,
			[]string{"was asked without TLS at port 853, which is for TLS (EOF)", "over TLS (`tls://` in `forward`)"},
		},
		"plain, seen to be refused": {
			[]trace.Upstream{failed(1, time.Millisecond, "read udp 192.0.2.1:4000->192.0.2.53:853: read: connection refused", dropped)}, DroppedNoSocket,
			[]string{"Nothing listened for the query of attempt 1", "over TLS (`tls://` in `forward`)"},
		},
		"a certificate": {
			[]trace.Upstream{ended(1, "tls: failed to verify certificate: x509: certificate has expired", "192.0.2.53:853")}, UpstreamError,
			[]string{"could not be asked (certificate has expired)", "tls_servername"},
		},
		"TCP, and it closes": {
			[]trace.Upstream{at53(failed(1, time.Millisecond, "EOF", query))}, UpstreamError,
			[]string{"was reached, and CoreDNS got no answer from it (EOF)", "or only with `+tls`"},
		},
	} {
		found := New().Trace(unserved(tc.upstreams...))
		if codesOf(found) != tc.code {
			t.Errorf("%s: %+v", name, found)
			continue
		}
		for _, part := range tc.want {
			if all := found[0].Summary + found[0].Advice; !strings.Contains(all, part) {
				t.Errorf("%s: %q is missing in %q", name, part, all)
			}
		}
	}
}
