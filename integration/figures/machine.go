package figures

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine says where, when and of what something was measured: figures of two
// machines do not compare.
type Machine struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of the binary, as git describes its commit
	Kernel  string    `json:"kernel"`
	Arch    string    `json:"arch"`
	CPUs    int       `json:"cpus"`
	Model   string    `json:"cpu_model,omitempty"`
	// Load is how many processes wanted to run, in the minute before: 0 is a quiet
	// machine, and what others do shows in the figures.
	Load float64 `json:"load"`
}

// Here is this machine now. binary is what is measured, and flag how it is asked for
// its version, which is the last word of a line that it prints, in parentheses or not.
func Here(binary, flag string) (Machine, error) {
	out, err := exec.Command(binary, flag).Output()
	if err != nil {
		return Machine{}, fmt.Errorf("version of %s: %w: build it with `make build`", binary, err)
	}
	words := strings.Fields(string(out))
	if len(words) == 0 {
		return Machine{}, fmt.Errorf("%s %s says nothing", binary, flag)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Machine{}, fmt.Errorf("kernel version: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return Machine{}, fmt.Errorf("load of this machine: %w", err)
	}
	const one = 1 << 16 // include/uapi/linux/sysinfo.h, SI_LOAD_SHIFT
	return Machine{Time: time.Now().UTC().Truncate(time.Second), Version: strings.Trim(words[len(words)-1], "()"), Kernel: unix.ByteSliceToString(u.Release[:]),
		Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Model: cpuModel(), Load: math.Round(float64(info.Loads[0])/one*100) / 100}, nil
}

// cpuModel returns what the kernel calls the processor, which is nothing on
// some architectures.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// String words it for the head of a table.
func (m Machine) String() string {
	cpus := strings.TrimSpace(fmt.Sprintf("%d CPUs %s", m.CPUs, m.Model))
	return fmt.Sprintf("%s · %s · Linux %s %s · %s · load before %.2f", m.Time.Format(time.RFC3339), m.Version, m.Kernel, m.Arch, cpus, m.Load)
}
