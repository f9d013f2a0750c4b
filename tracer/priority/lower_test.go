package priority

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// lowerEnv makes the test binary lower its priority, and look whether every
// thread has it: those that were there before, and one that is not.
const lowerEnv = "DNSTRACE_TEST_LOWER"

func TestMain(m *testing.M) {
	if os.Getenv(lowerEnv) == "" {
		os.Exit(m.Run())
	}
	for range 8 {
		busyThread()
	}
	if err := Lower(); err != nil {
		exit(err.Error())
	}
	busyThread()
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(threads) < 9 {
		exit("no threads")
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			exit(err.Error())
		}
		// The system call returns 20 - nice (getpriority(2)).
		got, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err != nil || got != 20-nice {
			exit(thread + ": nice " + strconv.Itoa(20-got))
		}
	}
	os.Exit(0)
}

func exit(why string) {
	_, _ = os.Stdout.WriteString(why + "\n")
	os.Exit(1)
}

// busyThread keeps a thread for a goroutine of its own.
func busyThread() {
	started := make(chan bool)
	go func() {
		runtime.LockOSThread()
		started <- true
		select {}
	}()
	<-started
}

func TestLower(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), lowerEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
