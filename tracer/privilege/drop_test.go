package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dropEnv makes the test binary give up its privileges, and say what is left.
const dropEnv = "DNSTRACE_TEST_DROP"

// otherEnv names another process of root's, which it then tries what it still may with.
const otherEnv = "DNSTRACE_TEST_DROP_OTHER"

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
	if pid, err := strconv.Atoi(os.Getenv(otherEnv)); err == nil {
		tryOther(pid)
		os.Exit(0)
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

// tryOther says what can be done with another process.
func tryOther(pid int) {
	of := func(file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }
	_, readArguments := os.ReadFile(of("cmdline"))
	_, readEnvironment := os.ReadFile(of("environ"))
	_, enterRoot := os.ReadDir(of("root/."))
	_, readMemory := os.Open(of("mem"))
	trace := make(chan error)
	go func() {
		runtime.LockOSThread()
		trace <- unix.PtraceSeize(pid)
	}()
	fmt.Println("arguments", readArguments == nil, "environment", readEnvironment == nil, "root", enterRoot == nil, "memory", readMemory == nil,
		"trace", <-trace == nil, "signal", unix.Kill(pid, unix.SIGTERM) == nil)
}

// In the node's PID namespace root's id is left, and what the kernel lets its user do with
// other processes of root's: read how they were started, and end them. Their environment,
// memory and files stay closed.
func TestWhatRootsIDIsGoodFor(t *testing.T) {
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copyForAll(t))
	cmd.Env = append(os.Environ(), dropEnv+"=1", fmt.Sprintf("%s=%d", otherEnv, other.Process.Pid))
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "arguments true environment false root false memory false trace false signal true" {
		t.Errorf("%s, %v", got, err)
	}
	_ = other.Process.Kill()
	_ = other.Wait() // by a signal
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
