package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// command runs bin/dnstrace and returns what it printed and its exit status.
func command(t *testing.T, attr *syscall.SysProcAttr, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &errs, attr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// binary returns a copy of bin/dnstrace that any user may run.
func binary(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "bin", "dnstrace"))
	if err != nil {
		t.Fatalf("%v; run `make build` first", err)
	}
	dir, err := os.MkdirTemp("", "dnstrace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "dnstrace")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// Without privilege: one line that says what is missing and the remedy, and exit
// status 1; never a stack trace.
func TestRunWithoutPrivilege(t *testing.T) {
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	_, stderr, status := command(t, nobody, "run", "--metrics", "")
	if status != 1 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d, standard error:\n%s", status, stderr)
	}
	wantAll(t, stderr, "CAP_BPF", "CAP_PERFMON", "root")

	stdout, stderr, status := command(t, nobody, "check")
	if status != 1 {
		t.Errorf("check: exit %d", status)
	}
	wantAll(t, stdout, "MISSING", "CAP_BPF", "remedy")
	wantAll(t, stderr, "would not work")
}

func TestCheckAsRoot(t *testing.T) {
	stdout, stderr, status := command(t, nil, "check")
	if status != 0 || strings.Contains(stdout, "MISSING") {
		t.Errorf("exit %d\n%s%s", status, stdout, stderr)
	}
}

func TestWrongArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "--port", "0"}, "--port 0: expected 1 to 65535"},
		{[]string{"run", "--sample", "1.5"}, "--sample 1.5: expected a rate from 0"},
		{[]string{"run", "--sample-in-kernel"}, "--sample-in-kernel: expected a --sample below 1"},
		{[]string{"run", "--record", "query"}, "--record query: expected exchange or trace"},
		{[]string{"run", "--filter", "rcod == 1"}, "--filter"},
		{[]string{"run", "--timeout", "-1s"}, "--timeout"},
		{[]string{"run", "--netns", "nobody"}, "--netns: no network namespace nobody in /run/netns: `ip netns list` shows"},
		{[]string{"run", "--netns", "/proc/self/ns/mnt"}, "--netns: /proc/self/ns/mnt is not a network namespace"},
		{[]string{"run", "--kubernetes", "kube.conf"}, "--kubernetes kube.conf: expected auto, off, or a kubeconfig"},
		{[]string{"run", "--output", "nonsense"}, `output "nonsense": expected stdout, file:PATH or otlp:URL`},
		{[]string{"run", "--output", "otlp:collector:4318"}, "expected http://HOST[:4318], https://, grpc://HOST[:4317] or grpcs://"},
		{[]string{"run", "--nonsense"}, "--nonsense"},
		{[]string{"run", "extra"}, "extra"},
		{[]string{"nonsense"}, "nonsense"},
	} {
		_, stderr, status := command(t, nil, tc.args...)
		if status != 2 || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d: %s", tc.args, status, stderr)
		}
	}
}

// explain and watch show what the running tracer saw; a second tracer with the
// same sockets is refused by name.
func TestExplainAndWatch(t *testing.T) {
	r := newRig(t)
	r.answered(lab.Query{Name: "shown.test."})
	r.trace("shown.test.")
	ctx := context.Background()

	out, err := r.Dnstrace(ctx, "explain", "--api", r.APISocket(), "shown.test")
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "shown.test.", "NOERROR", "cache", "miss", "forward", r.Upstream(0).V4().String(), r.Host(lab.CoreDNS).Netns)

	out, err = r.Dnstrace(ctx, "explain", "--api", r.APISocket(), "-o", "json", "shown.test.")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := trace.Decode([]byte(strings.TrimSpace(out)))
	if err != nil || rec.Kind() != trace.KindTrace {
		t.Errorf("explain -o json: %v", err)
	}

	out, err = r.Dnstrace(ctx, "watch", "--from", r.RecordFile(), "-f", `qname == "shown.test."`)
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "shown.test.", "NOERROR")

	out, err = r.Dnstrace(ctx, "watch", "--from", r.RecordFile(), "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("watch -o json: %s", line)
		}
	}

	_, stderr, status := command(t, nil, "run", "--listen", r.RecordSocket(), "--api", r.APISocket(), "--metrics", "")
	if status != 1 || !strings.Contains(stderr, "another `dnstrace run`") {
		t.Errorf("a second tracer on the same sockets: exit %d: %s", status, stderr)
	}
}

// SIGTERM: the tracer writes what it holds, says what it lost, and exits 0.
func TestStopFlushes(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer("--output", "stdout", "--record", "trace")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "flushed.test."})
	// The record comes with the plugin's next batch.
	time.Sleep(200 * time.Millisecond)
	if err := tracer.Stop(); err != nil {
		t.Fatal(err)
	}
	if code := tracer.ExitCode(); code != 0 {
		t.Errorf("exit %d", code)
	}
	wantAll(t, tracer.Stdout(), `"record":"trace"`, `"qname":"flushed.test."`, `"join":"exact"`)
	for line := range strings.Lines(tracer.Stdout()) {
		if !strings.HasPrefix(line, `{"v":1,"record":"trace"`) {
			t.Errorf("--record trace writes %.40s", line)
		}
	}
	wantAll(t, tracer.Stderr(), "dnstrace: ready", "0 lost")
}

func TestExplainWithoutTracer(t *testing.T) {
	_, stderr, status := command(t, nil, "explain", "--api", filepath.Join(t.TempDir(), "api.sock"), "example.com")
	if status != 1 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d: %s", status, stderr)
	}
	wantAll(t, stderr, "dnstrace run", "--from")
}
