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
