package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says where and when something was measured: figures of two machines
// do not compare.
type machine struct {
	Time   time.Time `json:"time"`
	Kernel string    `json:"kernel"`
	Arch   string    `json:"arch"`
	CPUs   int       `json:"cpus"`
	Model  string    `json:"cpu_model,omitempty"`
	// Load is how many processes wanted to run, in the minute before: 0 is a quiet
	// machine, and what others do shows in the figures.
	Load float64 `json:"load"`
}

func thisMachine() (machine, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return machine{}, fmt.Errorf("kernel version: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return machine{}, fmt.Errorf("load of this machine: %w", err)
	}
	const one = 1 << 16 // include/uapi/linux/sysinfo.h, SI_LOAD_SHIFT
	return machine{Time: time.Now().UTC().Truncate(time.Second), Kernel: unix.ByteSliceToString(u.Release[:]),
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

func (m machine) String() string {
	return fmt.Sprintf("%s · Linux %s %s · %d CPUs %s · load before %.2f", m.Time.Format(time.RFC3339), m.Kernel, m.Arch, m.CPUs, m.Model, m.Load)
}

// result is a figure as it is written to -results.
type result struct {
	machine
	Part    string   `json:"part"`
	Name    string   `json:"name"`
	Variant string   `json:"variant"`
	Unit    string   `json:"unit,omitempty"`
	Min     float64  `json:"min"`
	Median  float64  `json:"median"`
	Max     float64  `json:"max"`
	Rounds  int      `json:"rounds"`
	AtLeast *float64 `json:"goal_at_least,omitempty"`
	AtMost  *float64 `json:"goal_at_most,omitempty"`
}

// appendResults writes a line a figure to the file at path; none if that is empty.
func (m machine) appendResults(path, part string, figures []figure) (err error) {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("-results: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := json.NewEncoder(f)
	for _, fig := range figures {
		if len(fig.values) == 0 {
			continue
		}
		low, median, high := fig.spread()
		r := result{machine: m, Part: part, Name: fig.name, Variant: fig.variant, Unit: fig.unit,
			Min: low, Median: median, Max: high, Rounds: len(fig.values)}
		switch goal := fig.goal; {
		case goal.atLeast:
			r.AtLeast = &goal.value
		case goal.atMost:
			r.AtMost = &goal.value
		}
		if err := lines.Encode(r); err != nil {
			return fmt.Errorf("-results: %w", err)
		}
	}
	return nil
}
