package onkernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
)

// patience is how long a record may take: the tracer's timeout, and a machine
// that is emulated.
const patience = time.Minute

// startPatience is how long the tracer may take to start: the verifier of Linux 5.10 took
// more than a minute, emulated on a machine on which others worked.
const startPatience = 10 * time.Minute

// ownNetNS tells the tests that they have a network namespace of their own.
const ownNetNS = "DNSTRACE_TEST_OWN_NETNS"

// TestMain runs the tests in a network namespace of their own, where they may
// drop what they like.
func TestMain(m *testing.M) {
	if os.Getenv(ownNetNS) == "" {
		os.Exit(inOwnNetNS())
	}
	code := m.Run()
	if err := stopTracer(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func inOwnNetNS() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), ownNetNS+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	signal.Ignore(os.Interrupt) // it reaches the tests too
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace of their own, which needs root:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// binary is where the tracer is: beside go.mod after `make build`, in the PATH of
// a virtual machine.
func binary(t *testing.T) string {
	t.Helper()
	if path, err := filepath.Abs("../../../bin/dnstrace"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath("dnstrace")
	if err != nil {
		t.Fatalf("bin/dnstrace: make build first: %v", err)
	}
	return path
}

// tracer is the `dnstrace run` that all tests share: a start takes seconds on a
// machine that is emulated.
type tracer struct {
	t              *testing.T
	dir            string
	cmd            *exec.Cmd
	ended          chan error // what became of it, once
	records, wrote string     // files: its records, its standard error
}

var shared *tracer

// startTracer returns the tracer, which is started where no test has done so.
func startTracer(t *testing.T) *tracer {
	t.Helper()
	if shared == nil {
		up(t, "lo")
		dir, err := os.MkdirTemp("", "dnstrace-")
		if err != nil {
			t.Fatal(err)
		}
		shared = &tracer{dir: dir, records: filepath.Join(dir, "records.jsonl"), wrote: filepath.Join(dir, "stderr"), ended: make(chan error, 1)}
		stderr, err := os.Create(shared.wrote)
		if err != nil {
			t.Fatal(err)
		}
		defer stderr.Close()
		shared.cmd = exec.Command(binary(t), "run", "--listen", filepath.Join(dir, "l.sock"), "--api", filepath.Join(dir, "a.sock"),
			"--output", "file:"+shared.records, "--record", "exchange", "--metrics", "", "--kubernetes", "off", "--timeout", "1s")
		shared.cmd.Stderr = stderr
		if err := shared.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func(tr *tracer) { tr.ended <- tr.cmd.Wait() }(shared)
	}
	tr := *shared
	tr.t = t
	for end := time.Now().Add(startPatience); !strings.Contains(tr.said(), "dnstrace: ready"); time.Sleep(50 * time.Millisecond) {
		if len(tr.ended) > 0 || time.Now().After(end) {
			t.Fatalf("not ready: %s", tr.said())
		}
	}
	return &tr
}

// stopTracer ends it, if a test has started it, and removes what it wrote.
func stopTracer() error {
	if shared == nil || shared.cmd.Process == nil {
		return nil
	}
	defer func() { _ = os.RemoveAll(shared.dir) }()
	// One that ended by itself is no process any more, and has its own error.
	if err := shared.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := <-shared.ended; err != nil {
		said, _ := os.ReadFile(shared.wrote)
		return fmt.Errorf("dnstrace run: %w: %s", err, said)
	}
	return nil
}

func (tr *tracer) said() string {
	tr.t.Helper()
	b, err := os.ReadFile(tr.wrote)
	if err != nil {
		tr.t.Fatal(err)
	}
	return string(b)
}

// exchange waits for the record of a name's exchange.
func (tr *tracer) exchange(name string) *trace.Exchange {
	tr.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if all := tr.exchanges(name); len(all) > 0 {
			return all[0]
		}
	}
	tr.t.Fatalf("no record of %s", name)
	return nil
}

// exchanges returns those of a name that have been written.
func (tr *tracer) exchanges(name string) []*trace.Exchange {
	tr.t.Helper()
	f, err := os.Open(tr.records)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	defer f.Close()
	var all []*trace.Exchange
	for r := trace.NewReader(f); ; {
		rec, _, err := r.Read()
		var broken *trace.LineError
		switch {
		case errors.Is(err, io.EOF), errors.As(err, &broken): // the last line may be under way
			return all
		case err != nil:
			tr.t.Fatal(err)
		}
		if ex, ok := rec.(*trace.Exchange); ok && ex.QName == name {
			all = append(all, ex)
		}
	}
}

// atLeast compares the version of the kernel.
func atLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var haveMajor, haveMinor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &haveMajor, &haveMinor); err != nil {
		t.Fatal(err)
	}
	return haveMajor > major || haveMajor == major && haveMinor >= minor
}

func up(t *testing.T, device string) {
	t.Helper()
	link, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}
