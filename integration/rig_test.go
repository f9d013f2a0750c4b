// Package integration tests the real binaries in a node made of network
// namespaces: what users get.
package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// patience is how long a trace may take: the tracer's timeout, what it then
// waits for late records, and a slow machine.
const patience = 40 * time.Second

// rig is a lab with CoreDNS and the tracer running.
type rig struct {
	*lab.Lab
	t *testing.T
}

// corefile is a cluster's: the plugin's records go to the tracer.
func corefile(l *lab.Lab, plugin string) string {
	return fmt.Sprintf(`. {
    errors
    %s
    cache 30
    forward . %s %s {
        policy sequential
        max_fails 0
    }
}
`, plugin, l.Upstream(0).V4(), l.Upstream(1).V4())
}

func toTracer(l *lab.Lab) string { return "dnstrace {\n output unix " + l.RecordSocket() + "\n}" }

// newRig starts the tracer, and CoreDNS with its records going there.
func newRig(t *testing.T, tracerArgs ...string) *rig {
	t.Helper()
	r := tracerOnly(t, tracerArgs...)
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	return r
}

// tracerOnly starts the tracer in a lab without a server.
func tracerOnly(t *testing.T, args ...string) *rig {
	t.Helper()
	r := &rig{lab.New(t, lab.Config{}), t}
	if _, err := r.StartTracer(args...); err != nil {
		t.Fatal(err)
	}
	return r
}

// onlyIn are the flags of a tracer that observes some hosts of a lab and not what else
// the machine looks up.
func onlyIn(l *lab.Lab, hosts ...string) []string {
	var flags []string
	for _, h := range hosts {
		flags = append(flags, "--netns", l.Host(h).Netns)
	}
	return flags
}

// ask makes one lookup; its error is part of the result.
func (r *rig) ask(q lab.Query) lab.Result {
	r.t.Helper()
	res, _ := r.Client("client-a").Exchange(context.Background(), q)
	return res
}

func (r *rig) answered(q lab.Query) lab.Result {
	r.t.Helper()
	res := r.ask(q)
	if res.Err != nil {
		r.t.Fatalf("%s: %v", q.Name, res.Err)
	}
	return res
}

// traces waits for n traces of a client pod's lookups of a name.
func (r *rig) traces(name string, n int) []*trace.Trace {
	r.t.Helper()
	var found []*trace.Trace
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		found = found[:0]
		for _, rec := range r.records() {
			if t, ok := rec.(*trace.Trace); ok && t.QName == dns.CanonicalName(name) {
				found = append(found, t)
			}
		}
		if len(found) >= n {
			return found
		}
	}
	r.t.Fatalf("%s: %d traces, expected %d\n%s", name, len(found), n, r.Outputs())
	return nil
}

func (r *rig) trace(name string) *trace.Trace {
	r.t.Helper()
	return r.traces(name, 1)[0]
}

// findings returns the codes of a trace's diagnosis.
func findings(t *trace.Trace) []string {
	codes := []string{}
	for _, f := range t.Diagnosis {
		codes = append(codes, f.Code)
	}
	return codes
}
