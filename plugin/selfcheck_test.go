package dnstrace

import (
	"context"
	clog "log"
	"os"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// withoutSpans calls the next handler as a CoreDNS would that opens no spans.
var withoutSpans nextOrFailure = func(_ string, next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return next.ServeDNS(ctx, w, r)
}

// A CoreDNS that does what records rest on gets no warning, and one that does not gets one for each.
func TestSelfCheck(t *testing.T) {
	var out syncBuffer
	clog.SetOutput(&out)
	defer clog.SetOutput(os.Stderr)
	d := traced(t, asking{new(dns.Msg)}, false)
	d.check(plugin.NextOrFailure)
	recorded(t, d, new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
	if got := out.String(); got != "" {
		t.Errorf("the log is\n%s", got)
	}
	d.check(withoutSpans)
	for range 2 {
		q := &query{answeredBy: forwardPlugin}
		q.record.init(q)
		d.checkAttempts(&q.record)
	}
	got := out.String()
	for _, want := range []string{"records have no hops behind", "records have no upstream attempts"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, got)
		}
	}
}
