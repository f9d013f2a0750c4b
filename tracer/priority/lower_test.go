package priority

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// lowerEnv makes the test binary lower its priority, and look whether every
// thread has it: those that were there before, and one that is not.
const lowerEnv = "DNSTRACE_TEST_LOWER"

func TestMain(m *testing.M) {
	if os.Getenv(lowerEnv) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(lowerEnv) == "idle" {
		// Without CAP_SYS_NICE no thread may leave that policy.
		hdr, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		if _, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
			exit(errno.Error())
		}
	}
	for range 8 {
		busyThread()
	}
	if err := Lower(); err != nil {
		exit(err.Error())
	}
	if os.Getenv(lowerEnv) == "idle" {
		if got, err := unix.SchedGetAttr(0, 0); err != nil || got.Policy != unix.SCHED_IDLE {
			exit(fmt.Sprintf("%+v, %v", got, err))
		}
		os.Exit(0)
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
		got, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			exit(thread + ": " + err.Error())
		}
		// Before Linux 6.12 a thread has no slice of its own, and the kernel tells 0.
		if got.Nice != nice || got.Runtime != slice && got.Runtime != 0 {
			exit(fmt.Sprintf("%s: %+v", thread, got))
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

// A process that is started with SCHED_IDLE may not ask for more, and keeps it.
func TestLowerIdle(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // and ends the thread with the test: its policy is inherited by what it starts
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), lowerEnv+"=idle")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
