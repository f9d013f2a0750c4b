package capture

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Finding is one line of what this kernel and these privileges allow.
type Finding struct {
	What     string
	OK       bool
	Required bool   // without it nothing works
	Detail   string // what was found
	Lost     string // not OK: what is lost without it
	Remedy   string // not OK: what would help
}

// Probe finds out by trying what this kernel allows; package privilege does so for the
// privileges.
func Probe(ports []uint16) []Finding {
	findings := slices.Concat([]Finding{probeKernel(), probeBTF()}, probeAttach(ports))
	if kernel, err := btf.LoadKernelSpec(); err == nil {
		findings = append(findings, probeDropReasons(kernel), probeProcess(kernel), probeConntrack(kernel), probeMisses())
	}
	return append(findings, probeClock(), probeNetNS(netnsDir))
}

// Limited is what the running kernel does not report of a packet.
type Limited struct {
	Process bool // which process sent it
	Reason  bool // why it was dropped
}

// Limits returns which of these limits Probe finds. What cannot be read limits nothing:
// Open fails there.
func Limits() Limited {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return Limited{}
	}
	return Limited{Process: !provesProcess(kernel), Reason: len(dropReasons(kernel)) == 0}
}

func probeKernel() Finding {
	f := Finding{What: "kernel", OK: true}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		f.Detail = "Linux " + unix.ByteSliceToString(uts.Release[:])
	}
	return f
}

func probeBTF() Finding {
	f := Finding{What: "kernel types (BTF)", Required: true, Lost: "the programs cannot be loaded",
		Remedy: "use a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount /sys"}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		f.Detail = err.Error()
		return f
	}
	f.OK, f.Detail = true, "/sys/kernel/btf/vmlinux"
	return f
}

// probeAttach loads and attaches the programs as `dnstrace run` does, and detaches them.
func probeAttach(ports []uint16) []Finding {
	f := Finding{What: "load and attach", Required: true, Lost: "no packet is seen", Detail: "every program loaded and attached"}
	s, err := Open(Config{Ports: ports, RingBytes: 1 << 16})
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "see the lines above"
		return []Finding{f}
	}
	found := []Finding{probeNonLinearPayload(s), probeArrival(s), probeReading(s)}
	if err := s.Close(); err != nil {
		f.Detail = err.Error()
		return []Finding{f}
	}
	f.OK = true
	return append([]Finding{f}, found...)
}

func probeDropReasons(kernel *btf.Spec) Finding {
	n := len(dropReasons(kernel))
	return Finding{What: "drop reasons", OK: n > 0, Detail: fmt.Sprintf("%d reasons by name", n),
		Lost: "a drop says where, not why", Remedy: "Linux 5.17 or later gives reasons"}
}

// probeNonLinearPayload tells whether an open source sees non-linear payload.
func probeNonLinearPayload(s *Source) Finding {
	f := Finding{What: "TCP on virtual devices", OK: s.nonLinearErr == nil, Detail: "payload in pages is read in place",
		Lost:   "DNS over TCP between pods is not seen",
		Remedy: "allow perf_event_open (the seccomp profile) and more locked memory (ulimit -l), or Linux 6.12 or later"}
	switch {
	case s.nonLinearErr != nil:
		f.Detail = s.nonLinearErr.Error()
		if perfParanoid() > 2 {
			f.Remedy = "sysctl kernel.perf_event_paranoid=2, or CAP_SYS_ADMIN, or Linux 6.12 or later"
		}
	case s.perfReader != nil:
		f.Detail = "payload in pages is copied by the kernel (perf buffers)"
	}
	return f
}

// perfParanoid returns the restriction level of perf_event_open; 0 where unknown. Some
// distributions have levels above the kernel's highest, 2, for which CAP_PERFMON may not be
// enough.
func perfParanoid() (level int) {
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return 0
	}
	level, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	return level
}

// probeMisses tells whether the runs can be counted that the kernel skipped because the
// program was already running on that CPU. It counts them since Linux 5.12, and shows them
// without privileges, which the tracer drops, since 5.19.
func probeMisses() Finding {
	f := Finding{What: "runs left out", OK: kernelAtLeast(5, 19), Detail: "counted",
		Lost: "a packet at which the kernel left a program out is missing and not counted", Remedy: "Linux 5.19 or later"}
	if !f.OK {
		f.Detail = "the kernel does not tell, or not without privileges"
	}
	return f
}

// kernelAtLeast compares the running kernel's version. It stands in where BTF
// cannot tell: bpf_dynptr_from_skb is in 6.4, and open to tracing from 6.12 on.
func kernelAtLeast(major, minor int) bool {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return false
	}
	var haveMajor, haveMinor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &haveMajor, &haveMinor); err != nil {
		return false
	}
	return haveMajor > major || haveMajor == major && haveMinor >= minor
}

func probeProcess(kernel *btf.Spec) Finding {
	ok := provesProcess(kernel)
	f := Finding{What: "processes", OK: ok, Detail: "a sender's process can be proven",
		Lost: "clients and servers are shown without their process", Remedy: "Linux 5.15 or later"}
	if !ok {
		f.Detail = "the kernel does not show the registers of a system call"
	}
	return f
}

// provesProcess tells whether programs may read the registers of a system call:
// bpf_task_pt_regs, since Linux 5.15.
func provesProcess(kernel *btf.Spec) bool {
	var helpers *btf.Enum
	if err := kernel.TypeByName("bpf_func_id", &helpers); err != nil {
		return false
	}
	return slices.ContainsFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_task_pt_regs" })
}

func probeConntrack(kernel *btf.Spec) Finding {
	var ct *btf.Struct
	err := kernel.TypeByName("nf_conn", &ct)
	f := Finding{What: "connection tracking", OK: err == nil, Detail: "its entries are readable",
		Lost: "translated addresses are matched, not read", Remedy: "nf_conntrack built in, or loaded before dnstrace starts"}
	if err != nil {
		f.Detail = "the kernel's types have no nf_conn"
	}
	return f
}

// coarseClock is a clock resolution at which packets on two processors get the same time: a
// packet crosses a node in some ten steps.
const coarseClock = time.Microsecond

// probeClock tells the resolution of the times of packets, by which those of all processors
// are ordered. Without a counter that the kernel trusts it is that of its timer interrupt.
func probeClock() Finding {
	f := Finding{What: "clock", Lost: "packets of one moment are out of order: lookups with translated addresses may look unanswered",
		Remedy: "a better clock source than " + clockSource() + ": see /sys/devices/system/clocksource/clocksource0/available_clocksource, or boot with tsc=reliable"}
	var step unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC, &step); err != nil {
		f.Detail = err.Error()
		return f
	}
	d := time.Duration(step.Nano())
	var c Clock
	c.Sync()
	f.OK, f.Detail = d <= coarseClock, fmt.Sprintf("packets are timed to %s, by %s; their UTC is the system's, give or take %s", d, clockSource(), c.Within())
	return f
}

// clockSource returns the name of the kernel's, in words where it cannot be read.
func clockSource() string {
	name, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return "the kernel's clock"
	}
	return strings.TrimSpace(string(name))
}

func probeNetNS(dir string) Finding {
	f := Finding{What: "namespace names", Lost: "network namespaces are shown by number",
		Remedy: "mount the node's " + dir + " into the container"}
	entries, err := os.ReadDir(dir)
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	f.OK, f.Detail = true, fmt.Sprintf("%s has %d", dir, len(entries))
	return f
}
