package privilege

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/cgroup"
)

// facts are what decides what this process may do. Unprivileged eBPF
// (kernel.unprivileged_bpf_disabled) is none of them, since tracing always takes a
// capability; tracefs and bpffs are not needed, since nothing is pinned and BTF
// tracepoints are attached by their types.
type facts struct {
	capabilities  func(cap.Value) bool
	userNamespace bool   // another than the node's
	kernel        uint32 // LINUX_VERSION_CODE
	lockdown      string // as /sys/kernel/security/lockdown has it; empty: it is not there
	securityfs    bool   // what would show it is mounted: else lockdown is unknown
	symbols       error  // why functions of the kernel have no names
	kptrRestrict  string // sysctl kernel.kptr_restrict
	perfParanoid  string // sysctl kernel.perf_event_paranoid
	hostNetNS     error  // why the node's own namespace has no name
	cgroups       error
}

// Probe finds out what this process may do on this node.
func Probe() []capture.Finding {
	set := cap.GetProc()
	f := facts{
		capabilities:  func(v cap.Value) bool { return has(set, v) },
		userNamespace: strings.Join(strings.Fields(read("/proc/self/uid_map")), " ") != "0 0 4294967295",
		lockdown:      read(securityfs + "/lockdown"),
		securityfs:    mounted(securityfs, unix.SECURITYFS_MAGIC),
		symbols:       symbolsShown("/proc/kallsyms"),
		kptrRestrict:  read("/proc/sys/kernel/kptr_restrict"),
		perfParanoid:  read("/proc/sys/kernel/perf_event_paranoid"),
	}
	// Where the version cannot be read, what only old kernels want is not asked for.
	f.kernel, _ = features.LinuxVersionCode()
	_, f.hostNetNS = capture.HostNetNS()
	_, f.cgroups = cgroup.Open()
	return judge(f)
}

// securityfs is where the kernel's security modules show their state.
const securityfs = "/sys/kernel/security"

// mounted tells whether a file system of a kind is at a path.
func mounted(path string, magic int64) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && int64(fs.Type) == magic
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// symbolsShown tells why a list of symbols shows no addresses; nil: it does.
func symbolsShown(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		addr, _, _ := strings.Cut(scanner.Text(), " ")
		if strings.Trim(addr, "0") != "" {
			return nil
		}
	}
	return fmt.Errorf("%s hides addresses", path)
}

// judge is a pure function of the facts.
func judge(f facts) []capture.Finding {
	findings := []capture.Finding{
		f.loads(cap.BPF, "no program is loaded"),
		f.loads(cap.PERFMON, "no program may look at the kernel's packets"),
	}
	if f.kernel != 0 && f.kernel < version(5, 11) {
		findings = append(findings, f.locksMemory())
	}
	if f.userNamespace {
		findings = append(findings, capture.Finding{What: "user namespace", Required: true,
			Detail: "capabilities count only in the node's own, and this is another", Lost: "no program is loaded",
			Remedy: "run without a user namespace (in Kubernetes hostUsers: true)"})
	}
	return append(findings, f.lockedDown(), f.namesFunctions(), f.namesHost(), f.namesCgroups())
}

// loads judges a capability that loading takes. Before Linux 5.8 it was CAP_SYS_ADMIN, which
// still suffices.
func (f facts) loads(v cap.Value, lost string) capture.Finding {
	name := strings.ToUpper(v.String())
	finding := capture.Finding{What: name, Required: true, OK: true, Detail: "effective", Lost: lost,
		Remedy: "run as root, or with CAP_BPF and CAP_PERFMON (setcap cap_bpf,cap_perfmon=ep; in Kubernetes capabilities.add: [BPF, PERFMON])"}
	switch {
	case f.capabilities(v):
	case f.capabilities(cap.SYS_ADMIN):
		finding.Detail = "CAP_SYS_ADMIN stands for it"
	default:
		finding.OK, finding.Detail = false, "not effective"
	}
	return finding
}

// locksMemory judges what kernels want that count maps as locked memory.
func (f facts) locksMemory() capture.Finding {
	ok := f.capabilities(cap.SYS_RESOURCE)
	finding := capture.Finding{What: "CAP_SYS_RESOURCE", Required: true, OK: ok, Detail: "effective",
		Lost: "no map is made: before Linux 5.11 they count as locked memory", Remedy: "add CAP_SYS_RESOURCE, or Linux 5.11 or later"}
	if !ok {
		finding.Detail = "not effective"
	}
	return finding
}

// lockedDown judges kernel_lockdown(7). An unknown state is no failure: loading the programs
// shows it.
func (f facts) lockedDown() capture.Finding {
	finding := capture.Finding{What: "kernel lockdown", Required: true, OK: true, Detail: "none",
		Lost: "no program may read the kernel's memory, so no packet is seen", Remedy: "boot with lockdown=integrity or none"}
	if _, mode, ok := strings.Cut(f.lockdown, "["); ok {
		finding.Detail, _, _ = strings.Cut(mode, "]")
	} else if !f.securityfs {
		finding.Detail = "unknown: " + securityfs + " is not mounted here"
	}
	finding.OK = finding.Detail != "confidentiality"
	return finding
}

// namesFunctions judges whether addresses of functions are shown (kernel/kallsyms.c,
// kallsyms_show_value).
func (f facts) namesFunctions() capture.Finding {
	finding := capture.Finding{What: "kernel symbols", OK: f.symbols == nil, Detail: "/proc/kallsyms shows addresses",
		Lost: "a drop says why, not in which function or netfilter hook"}
	if f.symbols == nil {
		return finding
	}
	finding.Detail = f.symbols.Error()
	switch paranoid, err := strconv.Atoi(f.perfParanoid); {
	case errors.Is(f.symbols, os.ErrNotExist):
		finding.Remedy = "a kernel with CONFIG_KALLSYMS=y, and /proc mounted"
	case f.kptrRestrict == "2":
		finding.Remedy = "sysctl kernel.kptr_restrict=1, which hides them from none but those without CAP_SYSLOG"
	case f.kptrRestrict == "0" && err == nil && paranoid > 1:
		finding.Remedy = "CAP_SYSLOG, or sysctl kernel.perf_event_paranoid=1"
	default:
		finding.Remedy = "CAP_SYSLOG, or sysctl kernel.kptr_restrict=0 and kernel.perf_event_paranoid=1"
	}
	return finding
}

// namesHost tells whether the node's own network namespace can be identified.
func (f facts) namesHost() capture.Finding {
	finding := capture.Finding{What: "the node's namespace", OK: f.hostNetNS == nil, Detail: "/proc/1/ns/net can be looked at",
		Lost: "the node's own network namespace is shown by number", Remedy: "CAP_SYS_PTRACE (it is given up after the start), in the node's own PID and user namespace"}
	if f.hostNetNS != nil {
		finding.Detail = f.hostNetNS.Error()
	}
	return finding
}

func (f facts) namesCgroups() capture.Finding {
	finding := capture.Finding{What: "cgroup2", OK: f.cgroups == nil, Detail: "mounted",
		Lost: "clients and servers are shown without cgroup and container", Remedy: "mount -t cgroup2 none /sys/fs/cgroup"}
	if f.cgroups != nil {
		finding.Detail = f.cgroups.Error()
	}
	return finding
}

// version is LINUX_VERSION_CODE (include/linux/version.h).
func version(major, minor uint32) uint32 { return major<<16 | minor<<8 }
