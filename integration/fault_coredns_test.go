package integration

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// CoreDNS is told to reload every second, under load: each lookup is answered, and
// each has one trace with CoreDNS's record.
func TestReloadedEverySecond(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer("--timeout", "1s")
	if err != nil {
		t.Fatal(err)
	}
	server, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab)))
	if err != nil {
		t.Fatal(err)
	}
	end := r.load("reloaded")
	for range 5 {
		time.Sleep(time.Second)
		if err := server.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	results := end()
	unharmed(t, results)
	r.trace(results[len(results)-1].Name)
	if err := tracer.Stop(); err != nil {
		t.Error(err)
	}
	traces, recorded := map[string]int{}, map[string]bool{}
	for _, rec := range r.records() {
		if tr, ok := rec.(*trace.Trace); ok && tr.Exchange != nil {
			traces[tr.QName]++
			recorded[tr.QName] = recorded[tr.QName] || tr.Query != nil
		}
	}
	for _, res := range results {
		if traces[res.Name] != 1 || !recorded[res.Name] {
			t.Errorf("%s: %d traces, recorded %t, sent %d times", res.Name, traces[res.Name], recorded[res.Name], res.Transmissions)
		}
	}
}

// CoreDNS is killed, or dies as of a panic that nobody recovers (SIGQUIT makes Go's
// runtime end so, with the stacks of all goroutines): what is asked meanwhile is traced to where it died, and what is
// asked of the next CoreDNS is whole.
func TestCoreDNSKilled(t *testing.T) {
	r := tracerOnly(t, "--timeout", "1s")
	server, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab)))
	if err != nil {
		t.Fatal(err)
	}
	for i, death := range []syscall.Signal{syscall.SIGKILL, syscall.SIGQUIT, syscall.SIGKILL} {
		r.answered(lab.Query{Name: fmt.Sprintf("before%d.test.", i)})
		if err := server.Signal(death); err != nil {
			t.Fatal(err)
		}
		<-server.Exited()
		if err := server.Stop(); err == nil {
			t.Error("it did not die")
		}
		dead := fmt.Sprintf("dead%d.test.", i)
		r.ask(lab.Query{Name: dead, Timeout: time.Second})
		wantAll(t, evidence(t, r.trace(dead), "dropped-no-socket"), "NO_SOCKET", r.Host(lab.CoreDNS).Netns)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		after := fmt.Sprintf("after%d.test.", i)
		r.answered(lab.Query{Name: after})
		if tr := r.trace(after); tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact || len(tr.Diagnosis) != 0 {
			t.Errorf("%s: query %t, upstreams %+v, findings %v, gaps %v", after, tr.Query != nil, tr.Upstreams, findings(tr), tr.Gaps)
		}
	}
}
