package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// leastPrivileges runs a program as another user with the two capabilities that
// the README asks for, and ends it if this process dies.
var leastPrivileges = []string{"--reuid", "65534", "--regid", "65534", "--clear-groups",
	"--inh-caps", "-all,+bpf,+perfmon", "--ambient-caps", "-all,+bpf,+perfmon", "--pdeathsig", "KILL"}

// startLeast starts a tracer with no more privilege than it needs; its files are
// in a folder of its own.
func startLeast(t *testing.T, r *rig) (tracer *lab.Process, records string) {
	t.Helper()
	dir := filepath.Join(r.Dir(), "least")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	records = filepath.Join(dir, "records.jsonl")
	tracer, err := r.Start(lab.Spec{
		Name: "dnstrace-least", Path: "setpriv", Ready: lab.ReadyLine("dnstrace: ready"),
		Args: append(leastPrivileges[:len(leastPrivileges):len(leastPrivileges)], binary(t), "run",
			"--listen", filepath.Join(dir, "records.sock"), "--api", filepath.Join(dir, "api.sock"),
			"--output", "file:"+records, "--record", "exchange,trace", "--metrics", "", "--kubernetes", "off", "--timeout", "1s"),
	})
	if err != nil {
		t.Fatalf("%v (of the Debian package util-linux)", err)
	}
	return tracer, records
}

// When it is ready, the tracer has given up every capability on every thread,
// whether it began as root or with the least that works, and goes on tracing, drops
// with their places among it.
func TestRunGivesUpPrivileges(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	asRoot, err := r.StartTracer("--timeout", "1s")
	if err != nil {
		t.Fatal(err)
	}
	least, records := startLeast(t, r)
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab))); err != nil {
		t.Fatal(err)
	}
	checkPowerless(t, asRoot, "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
	// To empty the bounding set takes a capability that it never had.
	checkPowerless(t, least, "CapInh", "CapPrm", "CapEff", "CapAmb")

	r.answered(lab.Query{Name: "powerless.test."})
	undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "dropped.test.", Timeout: 500 * time.Millisecond})
	undo()
	tr := r.trace("powerless.test.")
	if tr.Query == nil || len(tr.Upstreams) != 1 || tr.Exchange.Client == nil || tr.Exchange.Client.PID != os.Getpid() {
		t.Errorf("query %t, %d upstreams, client %+v", tr.Query != nil, len(tr.Upstreams), tr.Exchange.Client)
	}
	// The list of symbols was opened while it still showed addresses.
	if d := r.trace("dropped.test.").Exchange.LastDrop(); d == nil || d.Description != "netfilter hook FORWARD" {
		t.Errorf("drop %+v", d)
	}
	if err := least.Stop(); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, rec := range readRecords(t, records) {
		if ex, ok := rec.(*trace.Exchange); ok && ex.ServerIP == lab.ServiceV4.Addr() {
			found[ex.QName] = ex.Outcome
		}
	}
	if found["powerless.test."] != trace.OutcomeAnswered || found["dropped.test."] != trace.OutcomeDropped {
		t.Errorf("with the least privileges: %v", found)
	}
}

// checkPowerless wants sets of capabilities to be empty on every thread.
func checkPowerless(t *testing.T, p *lab.Process, sets ...string) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of %d: %v, %v", p.Pid(), threads, err)
	}
	for _, file := range threads {
		status, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, string(status), "\nNoNewPrivs:\t1\n")
		for _, set := range sets {
			wantAll(t, string(status), "\n"+set+":\t0000000000000000\n")
		}
	}
}

// A command that a kubeconfig names for credentials runs as the tracer's user, and has none
// of the capabilities with which it began.
func TestCommandOfAKubeconfigIsPowerless(t *testing.T) {
	l := lab.New(t, lab.Config{})
	config, status := filepath.Join(t.TempDir(), "config"), filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(config, []byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: /bin/sh, args: ["-c", "cat /proc/self/status >`+status+`.new; mv `+status+`.new `+status+`; exit 1"]}}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.StartTracer("--kubernetes", config); err != nil {
		t.Fatal(err)
	}
	var content []byte
	for end := time.Now().Add(patience); len(content) == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		content, _ = os.ReadFile(status) // which is there in the end
	}
	wantAll(t, string(content), "\nUid:\t0\t0\t0\t0\n", "\nNoNewPrivs:\t1\n", "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n",
		"\nCapBnd:\t0000000000000000\n")
}

// With one capability only, it says which one is missing.
func TestRunWithoutPerfmon(t *testing.T) {
	l := lab.New(t, lab.Config{})
	args := strings.Fields(strings.ReplaceAll(strings.Join(leastPrivileges, " "), ",+perfmon", ""))
	out, err := l.Run(t.Context(), lab.Spec{Name: "check", Path: "setpriv", Args: append(args, binary(t), "check")})
	if err == nil {
		t.Error("check is content")
	}
	wantAll(t, out, "MISSING  CAP_PERFMON", "ok       CAP_BPF")
}
