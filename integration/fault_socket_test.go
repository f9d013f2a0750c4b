package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// socketRig is a tracer whose sockets are in a folder of their own, so that the whole
// folder can go, and CoreDNS.
type socketRig struct {
	*rig
	folder, recordSocket, apiSocket string
	tracer, server                  *lab.Process
}

func newSocketRig(t *testing.T) *socketRig {
	t.Helper()
	r := &socketRig{rig: &rig{lab.New(t, lab.Config{}), t}}
	r.folder = filepath.Join(r.Dir(), "run")
	r.recordSocket, r.apiSocket = filepath.Join(r.folder, "records.sock"), filepath.Join(r.folder, "api.sock")
	var err error
	if r.tracer, err = r.StartTracer("--timeout", "1s", "--listen", r.recordSocket, "--api", r.apiSocket); err != nil {
		t.Fatal(err)
	}
	if r.server, err = r.StartCoreDNS(corefile(r.Lab, "prometheus 127.0.0.1:9153\ndnstrace {\n output unix "+r.recordSocket+"\n}")); err != nil {
		t.Fatal(err)
	}
	return r
}

// appears waits until a path is there.
func appears(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not come again", path)
}

// Under load somebody deletes the sockets, and then their whole folder: they are made
// again, no lookup is harmed, and every record that CoreDNS's plugin did not count as
// lost is in a trace.
func TestSocketsDeletedUnderLoad(t *testing.T) {
	r := newSocketRig(t)
	end := r.load("deleted")
	for _, remove := range []func() error{
		func() error { return errors.Join(os.Remove(r.recordSocket), os.Remove(r.apiSocket)) },
		func() error { return os.RemoveAll(r.folder) },
	} {
		time.Sleep(500 * time.Millisecond)
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		appears(t, r.recordSocket)
		appears(t, r.apiSocket)
	}
	results := end()
	unharmed(t, results)
	r.recordedAgain("afterwards")
	if out, err := r.Dnstrace(t.Context(), "check", "--ready", "--api", r.apiSocket); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	lost := r.coreDNSCounter(t, "coredns_dnstrace_records_dropped_total")
	if err := r.tracer.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{r.recordSocket, r.apiSocket} {
		if n := strings.Count(r.tracer.Stderr(), socket+" was removed by somebody: it is made again"); n != 2 {
			t.Errorf("%s: told %d times\n%s", socket, n, r.tracer.Stderr())
		}
	}
	recorded := map[string]bool{}
	for _, rec := range r.records() {
		if tr, ok := rec.(*trace.Trace); ok {
			wholeAndRight(t, tr)
			recorded[tr.QName] = recorded[tr.QName] || tr.Query != nil
		}
	}
	missing := 0
	for _, res := range results {
		if !recorded[res.Name] {
			missing++
		}
	}
	if float64(missing) > lost {
		t.Errorf("%d of %d lookups lack CoreDNS's record; the plugin counted %v", missing, len(results), lost)
	}
	t.Logf("%d lookups, %d without CoreDNS's record, %v counted by the plugin", len(results), missing, lost)
}

// The folder is taken from the tracer, which has no capability any more: it says so
// once, is not ready, and goes on when it has its folder again.
func TestSocketCannotBeMadeAgain(t *testing.T) {
	r := newSocketRig(t)
	const nobody = 65534
	if err := errors.Join(os.Chown(r.folder, nobody, nobody), os.Remove(r.recordSocket)); err != nil {
		t.Fatal(err)
	}
	what := r.recordSocket + " was removed, and cannot be made again"
	var err error
	for end := time.Now().Add(patience); err == nil && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		_, err = r.Dnstrace(t.Context(), "check", "--ready", "--api", r.apiSocket)
	}
	if err == nil {
		t.Fatal("it is still ready")
	}
	wantAll(t, err.Error(), what, "belongs to user 65534")
	out, err := r.Dnstrace(t.Context(), "check", "--api", r.apiSocket)
	if err != nil {
		t.Error(err)
	}
	wantAll(t, out, "limited", what)
	// A plugin that starts now finds nobody, and counts what it cannot deliver. Packets
	// are traced still.
	if err := errors.Join(r.server.Stop(), r.server.Start()); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "meanwhile.test."})
	if tr := r.trace("meanwhile.test."); tr.Outcome != trace.OutcomeAnswered || tr.Query != nil {
		t.Errorf("%s, record %t", tr.Outcome, tr.Query != nil)
	}
	if lost := r.coreDNSCounter(t, "coredns_dnstrace_records_dropped_total"); lost != 1 {
		t.Errorf("the plugin counted %v", lost)
	}
	if err := os.Chown(r.folder, 0, 0); err != nil {
		t.Fatal(err)
	}
	appears(t, r.recordSocket)
	r.recordedAgain("mended")
	if _, err := r.Dnstrace(t.Context(), "check", "--ready", "--api", r.apiSocket); err != nil {
		t.Error(err)
	}
	if n := strings.Count(r.tracer.Stderr(), what); n != 1 {
		t.Errorf("told %d times\n%s", n, r.tracer.Stderr())
	}
}

// coreDNSCounter returns the sum of a counter over its labels.
func (r *rig) coreDNSCounter(t *testing.T, name string) float64 {
	t.Helper()
	sum := 0.0
	for line := range strings.Lines(r.coreDNSMetrics(t)) {
		if labels, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && strings.HasPrefix(labels, name+"{") {
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// coreDNSMetrics returns what CoreDNS tells Prometheus.
func (r *rig) coreDNSMetrics(t *testing.T) string {
	t.Helper()
	page, err := r.Run(t.Context(), lab.Spec{Name: "metrics", Host: lab.CoreDNS, Path: "/bin/bash",
		Args: []string{"-c", `exec 3<>/dev/tcp/127.0.0.1/9153; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`}})
	if err != nil {
		t.Fatal(err)
	}
	return page
}
