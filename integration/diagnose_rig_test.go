package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// recordEnv names a folder into which tests write the records of the faults that
// they provoked: how the recorded cases of tracer/diagnose/testdata are made.
//
//	DNSTRACE_RECORD=/tmp/cases go test ./integration -run TestDiagnose
const recordEnv = "DNSTRACE_RECORD"

// faultRig is a rig whose CoreDNS writes its records to a file too, so that a
// provoked fault can be kept as it was observed.
type faultRig struct {
	*rig
	server *lab.Process
	glibc  resolver // where a test has calls of it made
}

// pluginRecords is the file of CoreDNS's records.
func pluginRecords(l *lab.Lab) string { return filepath.Join(l.Dir(), "plugin.jsonl") }

// recording is the plugin's part of a Corefile.
func recording(l *lab.Lab) string {
	return fmt.Sprintf("dnstrace {\n output unix %s\n output file %s\n}", l.RecordSocket(), pluginRecords(l))
}

// forwarding is a Corefile that asks the upstreams in turn, with the plugins in
// front of it.
func forwarding(l *lab.Lab, plugins string) string { return corefile(l, recording(l)+"\n"+plugins) }

// labHosts are all hosts of a lab, at first.
var labHosts = []string{lab.Node, lab.CoreDNS, lab.Upstream, "client-a", "client-b"}

// newFaultRigInLab is newFaultRig with a tracer that leaves out what others of the
// machine look up: what it counts is the lab's.
func newFaultRigInLab(t *testing.T, corefile func(*lab.Lab) string, tracerArgs ...string) *faultRig {
	t.Helper()
	r := &faultRig{rig: &rig{lab.New(t, lab.Config{}), t}}
	_, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), tracerArgs...)...)
	if err == nil {
		r.server, err = r.StartCoreDNS(corefile(r.Lab))
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newFaultRig starts the tracer and CoreDNS with a Corefile.
func newFaultRig(t *testing.T, corefile func(*lab.Lab) string, tracerArgs ...string) *faultRig {
	t.Helper()
	r := &faultRig{rig: tracerOnly(t, tracerArgs...)}
	var err error
	if r.server, err = r.StartCoreDNS(corefile(r.Lab)); err != nil {
		t.Fatal(err)
	}
	return r
}

func plainForwarding(l *lab.Lab) string { return forwarding(l, "") }

// finds waits for the trace of a name and wants the finding in it, with parts of
// its summary and evidence.
func (r *faultRig) finds(name, code string, parts ...string) *trace.Trace {
	r.t.Helper()
	tr := r.trace(name)
	wantAll(r.t, evidence(r.t, tr, code), parts...)
	return tr
}

// spares waits for the n-th trace of a name and wants no finding of that code
// in any of them: a fault that is close to it, or none.
func (r *faultRig) spares(code, name string, n int) []*trace.Trace {
	r.t.Helper()
	traces := r.traces(name, n)
	for _, tr := range traces {
		if slices.Contains(findings(tr), code) {
			r.t.Errorf("%s: %s fires: %v", name, code, tr.Diagnosis)
		}
	}
	return traces
}

// allTraces returns the traces so far.
func (r *faultRig) allTraces() []*trace.Trace {
	r.t.Helper()
	var all []*trace.Trace
	for _, rec := range r.records() {
		if tr, ok := rec.(*trace.Trace); ok {
			all = append(all, tr)
		}
	}
	return all
}

// keep writes what was observed of lookups at or below the names as a recorded
// case, if asked to. The empty name is that of attempts to connect.
func (r *faultRig) keep(name string, zones ...string) {
	r.t.Helper()
	dir := os.Getenv(recordEnv)
	if dir == "" {
		return
	}
	var lines []byte
	for _, file := range []string{r.RecordFile(), pluginRecords(r.Lab)} {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			continue // CoreDNS tells the tracer alone
		}
		for _, rec := range last(readRecords(r.t, file)) {
			if q, ok := questionOf(rec); ok && slices.ContainsFunc(zones, func(z string) bool { return z == q || z != "" && dns.IsSubDomain(dns.Fqdn(z), q) }) {
				if ex, ok := rec.(*trace.Exchange); ok && ex.LostEvents > 0 {
					r.t.Fatalf("%s: the tracer lost %d packets meanwhile: record it again on a machine with less to do", name, ex.LostEvents)
				}
				lines = append(rec.AppendJSON(lines), '\n')
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name+".jsonl"), lines, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// last leaves out what a later record replaces.
func last(records []trace.Record) []trace.Record {
	replaced := map[string]bool{}
	for i := len(records) - 1; i >= 0; i-- {
		ex, ok := records[i].(*trace.Exchange)
		if !ok {
			continue
		}
		id := ex.TraceID.String() + ex.Time.String()
		if replaced[id] {
			records[i] = nil
		}
		replaced[id] = ex.Replaces
		ex.Replaces = false
	}
	return slices.DeleteFunc(records, func(rec trace.Record) bool { return rec == nil })
}

// questionOf returns the name of a record that an observer wrote; traces are
// made of those.
func questionOf(rec trace.Record) (string, bool) {
	switch rec := rec.(type) {
	case *trace.Exchange:
		return rec.QName, true
	case *trace.Query:
		return rec.QName, true
	case *trace.Refresh:
		return rec.QName, true
	}
	return "", false
}

// together makes lookups at once and waits for all of them.
func (r *faultRig) together(names []string, q lab.Query) {
	done := make(chan struct{})
	for _, name := range names {
		go func() {
			defer func() { done <- struct{}{} }()
			ask := q
			ask.Name = name
			r.ask(ask)
		}()
	}
	for range names {
		<-done
	}
}

func numbered(n int, suffix string) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%d.%s", i, strings.TrimPrefix(suffix, ".")))
	}
	return names
}
