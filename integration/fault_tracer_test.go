package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// load makes lookups in the background, at a rate at which none fails by itself,
// and returns how to end it and get its results.
func (r *rig) load(name string) (end func() []lab.Result) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan []lab.Result, 1)
	go func() {
		done <- r.Client("client-b").Bulk(ctx, lab.Bulk{Count: 1 << 16, Rate: 100, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("%s%d.test.", name, i), RetransmitAfter: time.Second}
		}})
	}()
	return func() []lab.Result {
		// Those under way end of themselves; only no new ones begin.
		time.AfterFunc(time.Second, cancel)
		all := <-done
		var sent []lab.Result
		for _, res := range all {
			if !res.Sent.IsZero() && !errors.Is(res.Err, context.Canceled) {
				sent = append(sent, res)
			}
		}
		return sent
	}
}

// unharmed wants every lookup answered with what the upstream has for it.
func unharmed(t *testing.T, results []lab.Result) {
	t.Helper()
	if len(results) == 0 {
		t.Fatal("nothing was asked")
	}
	for _, res := range results {
		if res.Err != nil || len(res.Answer.Answer) != 1 || !strings.HasSuffix(res.Answer.Answer[0].String(), lab.AddrA(res.Name).String()) {
			t.Errorf("%s: %v %v", res.Name, res.Err, res.Answer)
		}
	}
}

// kill ends a process without a chance to clean up.
func kill(t *testing.T, p *lab.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended: %v", err)
	}
}

// term ends a tracer as systemd and Kubernetes do.
func term(t *testing.T, p *lab.Process) {
	t.Helper()
	if err := p.Stop(); err != nil || p.ExitCode() != 0 {
		t.Errorf("it ended with %d: %v\n%s", p.ExitCode(), err, p.Stderr())
	}
}

// receivedLine is what a tracer says at its end.
var receivedLine = regexp.MustCompile(`; (\d+) plugin records;`)

// received returns how many records the tracers that had a chance to said at their end
// to have received.
func received(t *testing.T, p *lab.Process) (sum int) {
	t.Helper()
	for _, said := range receivedLine.FindAllStringSubmatch(p.Stderr(), -1) {
		var n int
		if _, err := fmt.Sscan(said[1], &n); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if strings.Contains(p.Stderr(), "plugin records refused") {
		t.Errorf("records were refused:\n%s", p.Stderr())
	}
	return sum
}

// A tracer that is ended under load and started again, three times: no lookup is
// harmed, every record in its file can be read, none is joined with another lookup, and
// when it is ready again lookups are traced, in whole as soon as the plugin has found it.
// CoreDNS's records reach one tracer or another, or the plugin counts them as lost; but
// for one that is killed, which takes along what it had.
func TestTracerKilledUnderLoad(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *lab.Process){"SIGTERM": term, "SIGKILL": kill} {
		t.Run(name, func(t *testing.T) {
			r := &rig{lab.New(t, lab.Config{}), t}
			tracer, err := r.StartTracer("--timeout", "1s")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.StartCoreDNS(corefile(r.Lab, "prometheus 127.0.0.1:9153\n"+toTracer(r.Lab))); err != nil {
				t.Fatal(err)
			}
			endLoad := r.load("underload")
			for i := range 3 {
				time.Sleep(300 * time.Millisecond)
				end(t, tracer)
				if err := tracer.Start(); err != nil {
					t.Fatal(err)
				}
				r.recordedAgain(fmt.Sprintf("again%d", i))
			}
			unharmed(t, endLoad())
			made, dropped := r.coreDNSCounter(t, "coredns_dnstrace_lookups_total"), r.coreDNSCounter(t, "coredns_dnstrace_records_dropped_total")
			term(t, tracer)
			got := received(t, tracer)
			away := int(made-dropped) - got
			t.Logf("%v records made, %d received, %v counted as dropped, %d gone with a tracer", made, got, dropped, away)
			if made == 0 || got == 0 || away < 0 || name == "SIGTERM" && away != 0 {
				t.Error("they do not add up")
			}
			for _, rec := range r.records() { // fails where one cannot be read
				if tr, ok := rec.(*trace.Trace); ok {
					wholeAndRight(t, tr)
				}
			}
		})
	}
}

// soon is how long the trace of a lookup may take, of a tracer with a timeout of a
// second, before another one is tried: where a tracer has much to catch up with, it
// leaves lookups out whole.
const soon = 10 * time.Second

// recordedAgain makes lookups until one is traced in whole: the plugin tries again
// from time to time to reach a tracer that went.
func (r *rig) recordedAgain(prefix string) {
	r.t.Helper()
	for i, end := 0, time.Now().Add(patience); time.Now().Before(end); i++ {
		name := fmt.Sprintf("%s-%d.test.", prefix, i)
		r.answered(lab.Query{Name: name, RetransmitAfter: time.Second})
		tr := r.traceSoon(name)
		switch {
		case tr == nil, tr.Exchange == nil && len(tr.Gaps) > 0: // left out, or its packets were
		case tr.Exchange == nil || tr.Outcome != trace.OutcomeAnswered:
			r.t.Errorf("%s: exchange %t, %s", name, tr.Exchange != nil, tr.Outcome)
		case tr.Query != nil && len(tr.Upstreams) == 1 && tr.Upstreams[0].Join == trace.JoinExact:
			return
		}
	}
	r.t.Errorf("%s: no record reaches the new tracer", prefix)
}

// traceSoon waits for the trace of a name, and returns nil if none comes soon.
func (r *rig) traceSoon(name string) *trace.Trace {
	r.t.Helper()
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, rec := range r.records() {
			if tr, ok := rec.(*trace.Trace); ok && tr.QName == name {
				return tr
			}
		}
	}
	return nil
}

// A full disk under the records: lookups go on, what is not written is counted, and
// the end says so.
func TestOutputDiskFull(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	full := "file:" + fullDisk(t)
	tracer, err := r.StartTracer("--timeout", "1s", "--output", full)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	end := r.load("full")
	time.Sleep(time.Second)
	unharmed(t, end())
	if err := tracer.Stop(); err != nil || tracer.ExitCode() != 1 {
		t.Errorf("it ended with %d: %v", tracer.ExitCode(), err)
	}
	// The other output has all of it.
	all := len(r.records())
	wantAll(t, tracer.Stderr(), fmt.Sprintf("output %s dropped %d records\n", full, all), "no space left on device")
	if got := len(r.traces("full0.test.", 1)); got != 1 {
		t.Errorf("%d traces", got)
	}
}

// A pod that is deleted while its query is open: its trace comes, with the name that
// its namespace had, and says that nothing came back.
func TestNamespaceDeletedWhileObserved(t *testing.T) {
	r := newRig(t, "--timeout", "1s")
	for i := range 2 {
		r.Upstream(i).Set("open.test.", lab.Behaviour{Silent: true})
	}
	pod, err := r.AddPod("short")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan lab.Result, 1)
	go func() {
		res, _ := r.Client("short").Exchange(context.Background(), lab.Query{Name: "open.test.", Timeout: time.Second})
		asked <- res
	}()
	for end := time.Now().Add(patience); len(r.Upstream(0).Received("open.test.")) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	netns := pod.Netns
	if err := r.RemovePod("short"); err != nil {
		t.Fatal(err)
	}
	<-asked
	r.answered(lab.Query{Name: "beside.test."})
	tr := r.trace("open.test.")
	if tr.Outcome == trace.OutcomeAnswered || tr.Exchange == nil || tr.Exchange.Path.At(0).NetNSName != netns {
		t.Errorf("%s: %+v", tr.Outcome, tr.Exchange)
	}
	if tr := r.trace("beside.test."); tr.Query == nil || len(tr.Diagnosis) != 0 || len(tr.Gaps) != 0 {
		t.Errorf("query %t, findings %v, gaps %v", tr.Query != nil, findings(tr), tr.Gaps)
	}
}

// What stands where a socket should be stops the start with what would help, and is
// left as it is.
func TestSocketPathsOccupied(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	file := filepath.Join(r.Dir(), "occupied")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--api", "--listen"} {
		args := []string{"run", "--api", r.APISocket(), "--listen", r.RecordSocket(), "--metrics", "", "--kubernetes", "off", flag, file}
		_, err := r.Dnstrace(t.Context(), args...)
		if err == nil || !strings.Contains(err.Error(), "exit code 1") {
			t.Fatalf("%s: %v", flag, err)
		}
		wantAll(t, err.Error(), file+" is no socket", "choose another path with "+flag)
		if content, err := os.ReadFile(file); err != nil || string(content) != "mine" {
			t.Errorf("%s: the file is %q, %v", flag, content, err)
		}
	}
	if _, err := r.StartTracer(); err != nil {
		t.Fatal(err)
	}
	_, err := r.Dnstrace(t.Context(), "run", "--api", r.APISocket(), "--listen", file+"2", "--metrics", "", "--kubernetes", "off")
	if err == nil {
		t.Fatal("two tracers on one socket")
	}
	wantAll(t, err.Error(), "another `dnstrace run` serves it")
}
