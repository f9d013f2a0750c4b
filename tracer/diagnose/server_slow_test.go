package diagnose

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A plugin that took its time and failed is reported with its error.
func TestServerSlowThatFailed(t *testing.T) {
	for rcode, want := range map[string]string{
		"NOERROR":  "CoreDNS's plugin etcd took 5.00 s of the 5.00 s that the server needed.",
		"SERVFAIL": "CoreDNS's plugin etcd took 5.00 s of the 5.00 s that the server needed, and answered SERVFAIL: context deadline exceeded.",
	} {
		q := &trace.Query{AnsweredBy: "etcd", Hops: []trace.Hop{{Plugin: "etcd", Duration: trace.SecondsPtr(5 * time.Second)}}}
		q.RCode, q.DNS.Duration = rcode, trace.SecondsPtr(5*time.Second)
		if rcode != "NOERROR" {
			q.Error = "context deadline exceeded"
		}
		if found := serverSlow(nil, &trace.Trace{Query: q}); len(found) != 1 || found[0].Summary != want {
			t.Errorf("%+v, want %q", found, want)
		}
	}
}
