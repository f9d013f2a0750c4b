package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// freeAddr returns an address of loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", lab.FreePorts(t, 1)[0])
}

// scrape returns what a tracer says to Prometheus, once it is there.
func scrape(t *testing.T, addr string) string {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	for end := time.Now().Add(patience); err != nil; resp, err = http.Get("http://" + addr + "/metrics") {
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// metric returns the value of a series, as it is written out.
func metric(t *testing.T, text, series string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (.+)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in\n%s", series, text)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The metrics say what happened to lookups: who was answered, from where the
// latency came, which upstream failed, what was dropped.
func TestMetrics(t *testing.T) {
	addr := freeAddr(t)
	r := newRig(t, "--timeout", "2s", "--metrics", addr, "--metrics-labels", "pod")
	r.answered(lab.Query{Name: "miss.test."})
	r.answered(lab.Query{Name: "miss.test."})
	r.SilentUpstream(0, "failover.test.")
	r.answered(lab.Query{Name: "failover.test."})
	undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "dropped.test.", Timeout: time.Second})
	undo()
	r.traces("miss.test.", 2)
	r.trace("failover.test.")
	r.trace("dropped.test.")
	time.Sleep(time.Second) // the counters of others are published five times a second
	text := scrape(t, addr)
	client, up0, up1 := r.Host("client-a").V4.String(), r.Upstream(0).V4().String(), r.Upstream(1).V4().String()
	// Other labs of this machine may be seen too, so there can be more.
	for series, least := range map[string]float64{
		fmt.Sprintf(`dnstrace_client_lookups_total{client_ip=%q,namespace="",pod="",result="noerror"}`, client):    3,
		fmt.Sprintf(`dnstrace_client_lookups_total{client_ip=%q,namespace="",pod="",result="unanswered"}`, client): 1,
		fmt.Sprintf(`dnstrace_client_duration_seconds_count{client_ip=%q,namespace="",pod=""}`, client):            3,
		fmt.Sprintf(`dnstrace_upstream_attempts_total{result="ok",upstream=%q}`, up0):                              1,
		fmt.Sprintf(`dnstrace_upstream_attempts_total{result="timeout",upstream=%q}`, up0):                         1,
		fmt.Sprintf(`dnstrace_upstream_attempts_total{result="ok",upstream=%q}`, up1):                              1,
		fmt.Sprintf(`dnstrace_upstream_duration_seconds_count{upstream=%q}`, up1):                                  1,
		`dnstrace_drops_total{message="query",query="client",reason="NETFILTER_DROP"}`:                             1,
		`dnstrace_server_duration_seconds_count{cache="hit"}`:                                                      1,
		`dnstrace_server_duration_seconds_count{cache="miss"}`:                                                     2,
		`dnstrace_lookups_total{client="local",outcome="answered"}`:                                                3, `dnstrace_lookups_total{client="local",outcome="dropped"}`: 1,
		`dnstrace_responses_total{client="local",rcode="NOERROR"}`: 3, `dnstrace_lookup_duration_seconds_count{client="local"}`: 3,
		`dnstrace_findings_total{code="upstream-timeout"}`: 1, `dnstrace_findings_total{code="dropped-by-netfilter"}`: 1,
		"dnstrace_history_traces": 4, "process_resident_memory_bytes": 1 << 20,
	} {
		if got := metric(t, text, series); got < least {
			t.Errorf("%s is %v, expected at least %v", series, got, least)
		}
	}
}

// A standard output that nobody reads (a log agent that hangs behind a full pipe)
// and a full disk hold nothing up: lookups and the other outputs are as ever, and
// what is lost is in the metrics, in `check`, and in what is said at the end.
func TestBlockedOutputs(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	addr, full := freeAddr(t), "file:"+fullDisk(t)
	unread, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	path, err := filepath.Abs(filepath.Join("..", "bin", "dnstrace"))
	if err != nil {
		t.Fatal(err)
	}
	tracer := exec.Command(path, "run", "--listen", r.RecordSocket(), "--api", r.APISocket(), "--metrics", addr,
		"--output", "stdout", "--output", full, "--output", "file:"+r.RecordFile())
	var stderr bytes.Buffer
	tracer.Stdout, tracer.Stderr = stdout, &stderr
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	defer func() { _ = tracer.Process.Kill() }()
	scrape(t, addr) // it is ready
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	dropped := func(output string) float64 {
		return metric(t, scrape(t, addr), fmt.Sprintf("dnstrace_output_records_dropped_total{output=%q}", output))
	}
	sent := map[string]lab.Result{}
	for round := 0; dropped("stdout") == 0; round++ {
		if round == 20 {
			t.Fatal("nothing was dropped")
		}
		for _, res := range r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: 500, Rate: 500, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("n%d-%d.test.", round, i)}
		}}) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
			sent[res.Name] = res
		}
	}
	if found := r.bulkTraces(sent, len(sent)); len(found) != len(sent) {
		t.Errorf("the output beside it has %d traces of %d", len(found), len(sent))
	}
	if dropped(full) == 0 || dropped("file:"+r.RecordFile()) != 0 {
		t.Error("the losses are not where they belong")
	}
	out, err := r.Dnstrace(context.Background(), "check", "--api", r.APISocket())
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "running tracer", "lost records not written", "by "+full, "by stdout", "remedy: let the receiver or reader take more")

	// Still nobody reads: it ends all the same.
	if err := tracer.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- tracer.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(patience):
		t.Fatalf("it does not end\n%s", stderr.String())
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended: %v\n%s", err, stderr.String())
	}
	wantAll(t, stderr.String(), "output stdout dropped", "output "+full+" dropped", "no space left on device", "output stdout: nobody took the last")
	if strings.Contains(stderr.String(), "panic") {
		t.Error(stderr.String())
	}
}
