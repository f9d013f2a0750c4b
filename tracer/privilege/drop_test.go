package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dropEnv makes the test binary give up its privileges, and say what is left.
const dropEnv = "DNSTRACE_TEST_DROP"

func TestMain(m *testing.M) {
	if os.Getenv(dropEnv) == "" {
		os.Exit(m.Run())
	}
	// Threads that are there before, each busy with a goroutine of its own.
	for range 8 {
		started := make(chan bool)
		go func() {
			runtime.LockOSThread()
			started <- true
			select {}
		}()
		<-started
	}
	if err := Drop(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	files, _ := filepath.Glob("/proc/self/task/*/status")
	for _, file := range files {
		status, err := os.ReadFile(file)
		fmt.Printf("%s%v\n", status, err)
	}
	os.Exit(0)
}

// Nothing is left on any thread, whatever there was.
func TestDropLeavesNothing(t *testing.T) {
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for name, attr := range map[string]*syscall.SysProcAttr{
		"root":                 nil,
		"the least that works": {Credential: nobody, AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}},
		"nothing":              {Credential: nobody},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(copyForAll(t))
			cmd.Env, cmd.SysProcAttr = append(os.Environ(), dropEnv+"=1"), attr
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			threads := strings.Count(string(out), "\nPid:")
			if threads < 9 || strings.Count(string(out), "\nNoNewPrivs:\t1\n") != threads {
				t.Errorf("%d threads:\n%s", threads, out)
			}
			sets := []string{"CapInh", "CapPrm", "CapEff", "CapAmb"}
			if attr == nil {
				sets = append(sets, "CapBnd") // it takes CAP_SETPCAP
			}
			for _, set := range sets {
				if n := strings.Count(string(out), "\n"+set+":\t0000000000000000\n"); n != threads {
					t.Errorf("%s is empty on %d of %d threads:\n%s", set, n, threads, out)
				}
			}
		})
	}
}

// copyForAll returns a copy of this program that any user may run.
func copyForAll(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "dnstrace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}
