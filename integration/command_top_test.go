package integration

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// top sums up what the running tracer saw: who got no answer, and which upstream
// is silent.
func TestTop(t *testing.T) {
	r := newRig(t)
	undo := r.SilentUpstream(0, "slow.top.test.")
	r.answered(lab.Query{Name: "fine.top.test."})
	r.answered(lab.Query{Name: "failover.slow.top.test."})
	undo()
	drop, err := r.DropAt(lab.ClientOutput("client-a"), lab.Match{Messages: lab.Queries})
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "lost.top.test.", Timeout: time.Second})
	drop()
	r.trace("lost.top.test.")
	r.trace("failover.slow.top.test.")

	// A tracer sees the whole machine, and with it what else runs there.
	ours := []string{"top", "-f", `qname endsWith ".top.test."`}
	ctx := context.Background()
	out, err := r.Dnstrace(ctx, append(ours, "--once", "--api", r.APISocket())...)
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "3 lookups", "1 timeout ", r.Host("client-a").V4.String(), "HEALTH", r.Upstream(0).V4().String())

	out, err = r.Dnstrace(ctx, append(ours, "--from", r.RecordFile(), "-o", "rows")...)
	if err != nil {
		t.Fatal(err)
	}
	health := map[string]string{}
	for line := range strings.Lines(out) {
		var row struct{ Upstream, Health string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if row.Upstream != "" {
			health[row.Upstream] = row.Health
		}
	}
	if first, second := health[r.Upstream(0).V4().String()], health[r.Upstream(1).V4().String()]; first != "failing" || second != "ok" {
		t.Errorf("health of the upstreams: %v", health)
	}
}

// In a terminal top draws until a key says that it is enough, and gives the
// terminal back as it was. script(1), which every Debian has, is the terminal.
func TestTopInATerminal(t *testing.T) {
	r := newRig(t)
	r.answered(lab.Query{Name: "shown.test."})
	r.trace("shown.test.")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := filepath.Abs(filepath.Join("..", "bin", "dnstrace"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "script", "-qec", path+" top --window 1h --api "+r.APISocket(), "/dev/null")
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3*time.Second, func() {
		// script may be gone when the test has failed already.
		_, _ = keys.Write([]byte("q"))
	})
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantAll(t, string(out), "\x1b[?1049h", r.Host("client-a").V4.String(), "q quit")
	if !strings.HasSuffix(strings.TrimSpace(string(out)), "\x1b[?25h\x1b[?1049l") {
		t.Errorf("the terminal is not given back: %q", out)
	}
}
