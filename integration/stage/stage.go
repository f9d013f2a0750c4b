// Package stage sets up the lab for people to look at: the tracer on the host and
// CoreDNS behind the Service, for the demonstration and the walks of docs/.
package stage

import (
	"fmt"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// TracerTimeout is longer than the 2 s which forward waits for an upstream, and
// than the 3 s after which the kernel drops what waits for a neighbour that does
// not exist, so that only what is really lost counts as unanswered.
const TracerTimeout = 4 * time.Second

// settleTimeout is how long a finished trace may take to be written: the tracer
// waits for late records.
const settleTimeout = TracerTimeout + 12*time.Second

// Start starts the tracer on the host, and then CoreDNS in its pod, so that
// CoreDNS finds the tracer's socket.
func Start(l *lab.Lab) error {
	if _, err := l.StartTracer("--timeout", TracerTimeout.String(), "--filter", OfLab(l)); err != nil {
		return err
	}
	_, err := l.StartCoreDNS(corefile(l))
	return err
}

// OfLab is a filter that is true of records of the lab's own lookups. The tracer
// sees all namespaces, and so what the machine and its containers look up
// meanwhile.
func OfLab(l *lab.Lab) string {
	prefix := strings.TrimSuffix(l.Host(lab.Node).Netns, lab.Node)
	return fmt.Sprintf("any(record == %q ? exchange.path : path, .netns_name startsWith %q)", trace.KindTrace, prefix)
}

// corefile asks the upstreams in order, and the first one first every time:
// max_fails 0 means that no failure marks it down.
func corefile(l *lab.Lab) string {
	return fmt.Sprintf(`. {
    errors
    dnstrace {
        output unix %s
    }
    cache 30
    forward . %s %s {
        policy sequential
        max_fails 0
    }
}
`, l.RecordSocket(), l.Upstream(0).V4(), l.Upstream(1).V4())
}
