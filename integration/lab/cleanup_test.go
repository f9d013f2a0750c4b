package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ownPrefix is how the names of this process's labs begin.
func ownPrefix() string { return fmt.Sprintf("dt%d-", os.Getpid()) }

func TestTwoLabsAtOnceAndNothingLeft(t *testing.T) {
	before := machine(t)
	t.Run("labs", func(t *testing.T) {
		one, first := newLab(t, Config{})
		two, second := newLab(t, Config{})
		for _, l := range []*Lab{one, two} {
			if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: l.prefix + ".test"}); err != nil {
				t.Error(err)
			}
			if _, err := l.Start(Spec{Name: "sleep", Host: "client-a", Path: "sleep", Args: []string{"1000"}}); err != nil {
				t.Error(err)
			}
		}
		if len(first.Received()) != 1 || len(second.Received()) != 1 {
			t.Errorf("labs are not apart: %v, %v", first.Received(), second.Received())
		}
		if slices.Equal(machine(t), before) {
			t.Error("the labs are nowhere to be seen")
		}
	})
	if after := machine(t); !slices.Equal(after, before) {
		t.Errorf("left behind:\n%q\nbefore:\n%q", after, before)
	}
}

// TestFailedTestLeavesNothing runs tests that fail and panic in a process of
// their own, and one that is killed, whose leftovers the next lab removes.
func TestFailedTestLeavesNothing(t *testing.T) {
	if how := os.Getenv("LAB_TEST_END"); how != "" {
		endBadly(t, how)
	}
	for _, how := range []string{"fatal", "panic", "kill"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFailedTestLeavesNothing$")
		cmd.Env = append(os.Environ(), "LAB_TEST_END="+how)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(string(out), "lab is up") {
			t.Fatalf("%s: %v\n%s", how, err, out)
		}
		prefix := fmt.Sprintf("dt%d-", cmd.Process.Pid)
		if how == "kill" {
			if len(entriesOf(t, prefix)) == 0 {
				t.Error("the killed process left nothing to sweep")
			}
			if err := Sweep(); err != nil {
				t.Error(err)
			}
		}
		if left := entriesOf(t, prefix); len(left) > 0 {
			t.Errorf("%s: left behind %q", how, left)
		}
		if pid := childPid(t, out); alive(pid) {
			t.Errorf("%s: process %d, which the lab started, lives on", how, pid)
		}
	}
}

// endBadly builds a lab with a process in it and ends as told.
func endBadly(t *testing.T, how string) {
	l, _ := newLab(t, Config{})
	p, err := l.Start(Spec{Name: "sleep", Host: "client-a", Path: "sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("lab is up, child %d\n", p.Pid())
	switch how {
	case "fatal":
		t.Fatal("as asked")
	case "panic":
		panic("as asked")
	case "kill":
		if err := kill(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
	}
}

func kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// childPid reads what endBadly printed, and waits a little for the kernel to
// bury the process.
func childPid(t *testing.T, out []byte) int {
	t.Helper()
	var pid int
	_, after, _ := strings.Cut(string(out), "lab is up, child ")
	if _, err := fmt.Sscan(after, &pid); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	for range 100 {
		if !alive(pid) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return pid
}

// entriesOf lists namespaces and temporary folders with that prefix.
func entriesOf(t *testing.T, prefix string) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{netnsDir, os.TempDir()} {
		matches, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	return found
}

func TestCloseReportsAProcessThatDied(t *testing.T) {
	l, err := Build(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(l.Dir()); err != nil {
			t.Error(err)
		}
	})
	p, err := l.Start(Spec{Name: "ill", Host: "client-a", Path: "sh", Args: []string{"-c", "echo feeling bad >&2; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if p.ExitCode() != 3 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	err = l.Close()
	if err == nil || !strings.Contains(err.Error(), "ill ended unexpectedly: exit status 3") || !strings.Contains(err.Error(), "feeling bad") {
		t.Errorf("Close returned %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close returned %v", err)
	}
}

func TestBuildFailsCleanly(t *testing.T) {
	before := machine(t)
	if _, err := Build(Config{Clients: []string{"twin", "twin"}}); err == nil || !strings.Contains(err.Error(), "twin") {
		t.Errorf("error %v", err)
	}
	if _, err := Build(Config{Upstreams: 1000}); err == nil {
		t.Error("a thousand upstreams were built")
	}
	if after := machine(t); !slices.Equal(after, before) {
		t.Errorf("left behind:\n%q\nbefore:\n%q", after, before)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	l, _ := newLab(t, Config{CoreDNS: "/nonexistent/coredns"})
	if _, err := l.StartCoreDNS(". {\n}\n"); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v", err)
	}
	if _, err := l.Start(Spec{Name: "x", Path: "no-such-program"}); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("error %v", err)
	}
	_, err := l.Start(Spec{Name: "mute", Host: CoreDNS, Path: "/bin/sleep", Args: []string{"100"},
		Ready: ReadyLine("never"), ReadyTimeout: 50 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), `has not written "never"`) {
		t.Errorf("error %v", err)
	}
	_, err = l.Start(Spec{Name: "brief", Host: CoreDNS, Path: "/bin/sh", Args: []string{"-c", "echo wrong flag; exit 2"},
		Ready: ReadyListening(99)})
	if err == nil || !strings.Contains(err.Error(), "ended before it was ready") || !strings.Contains(err.Error(), "wrong flag") {
		t.Errorf("error %v", err)
	}
	if _, err := l.Serve(CoreDNS, netip.MustParseAddrPort("10.9.9.9:53")); err == nil {
		t.Error("served on an address that the pod does not have")
	}
}
