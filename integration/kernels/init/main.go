// Command init is PID 1 of a virtual machine that lives for one test run: it
// mounts what the tests need, runs every program of /tests, and powers off.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

// Lines that the host reads (integration/kernels/main.go).
const (
	passed = "TEST PASSED"
	failed = "TEST FAILED"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(failed, err)
	} else {
		fmt.Println(passed)
	}
	unix.Sync()
	// Nothing is left to do if that fails: the host's timeout ends the machine.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range []struct{ dir, kind string }{
		{"/proc", "proc"}, {"/sys", "sysfs"}, {"/tmp", "tmpfs"}, {"/run", "tmpfs"}, {"/sys/fs/cgroup", "cgroup2"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	lacks, err := os.ReadFile(feature.LacksFile)
	if err != nil {
		return err
	}
	// The machine is the tests' alone: one of them steps its clock.
	if err := errors.Join(os.Setenv("PATH", "/bin"), os.Setenv("DNSTRACE_TEST_MACHINE", "own"),
		os.Setenv(feature.LacksVariable, string(lacks))); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	clock, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return err
	}
	fmt.Printf("kernel %s, clock %s", unix.ByteSliceToString(uts.Release[:]), clock)
	tests, err := filepath.Glob("/tests/*")
	if err != nil {
		return err
	}
	if len(tests) == 0 {
		return errors.New("no tests in the image")
	}
	var errs []error
	for _, test := range tests {
		cmd := exec.Command(test, "-test.v", "-test.run="+strings.Join(os.Args[1:], " "))
		cmd.Dir = "/tmp"
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		if err := cmd.Run(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(test), err))
		}
	}
	return errors.Join(errs...)
}

// loadModules loads what the image has, in the order of the names.
func loadModules() error {
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, path := range modules {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("load the module %s: %w", filepath.Base(path), err)
		}
	}
	return nil
}
