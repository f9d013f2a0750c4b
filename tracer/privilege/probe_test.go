package privilege

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// having returns the facts of a process with these capabilities and no other problem.
func having(values ...cap.Value) facts {
	return facts{kernel: version(6, 12), capabilities: func(v cap.Value) bool { return slices.Contains(values, v) }}
}

func TestJudge(t *testing.T) {
	hidden := errors.New("/proc/kallsyms hides addresses")
	for _, tc := range []struct {
		name   string
		facts  facts
		change func(*facts)
		want   string // the finding that is not OK; empty: all are
		stops  bool   // it is required
		parts  string // of its remedy
	}{
		{name: "the least that works", facts: having(cap.BPF, cap.PERFMON)},
		{name: "as before Linux 5.8", facts: having(cap.SYS_ADMIN)},
		{name: "one of two", facts: having(cap.PERFMON), want: "CAP_BPF", stops: true, parts: "CAP_BPF and CAP_PERFMON"},
		{name: "the other", facts: having(cap.BPF), want: "CAP_PERFMON", stops: true, parts: "PERFMON"},
		{name: "locked memory", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.kernel = version(5, 10) },
			want: "CAP_SYS_RESOURCE", stops: true, parts: "5.11"},
		{name: "locked memory is allowed", facts: having(cap.BPF, cap.PERFMON, cap.SYS_RESOURCE), change: func(f *facts) { f.kernel = version(5, 10) }},
		{name: "another user namespace", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.userNamespace = true },
			want: "user namespace", stops: true, parts: "hostUsers"},
		{name: "integrity", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.lockdown = "none [integrity] confidentiality" }},
		{name: "confidentiality", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.lockdown = "none integrity [confidentiality]" },
			want: "kernel lockdown", stops: true, parts: "lockdown=integrity"},
		{name: "symbols hidden from all", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.symbols, f.kptrRestrict = hidden, "2" },
			want: "kernel symbols", parts: "kernel.kptr_restrict=1"},
		{name: "symbols hidden by perf", facts: having(cap.BPF, cap.PERFMON),
			change: func(f *facts) { f.symbols, f.kptrRestrict, f.perfParanoid = hidden, "0", "3" },
			want:   "kernel symbols", parts: "CAP_SYSLOG, or sysctl kernel.perf_event_paranoid=1"},
		{name: "symbols hidden", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.symbols, f.kptrRestrict = hidden, "1" },
			want: "kernel symbols", parts: "CAP_SYSLOG"},
		{name: "no symbols", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.symbols = os.ErrNotExist },
			want: "kernel symbols", parts: "CONFIG_KALLSYMS"},
		{name: "the node's namespace", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.hostNetNS = os.ErrPermission },
			want: "the node's namespace", parts: "CAP_SYS_PTRACE"},
		{name: "no cgroup2", facts: having(cap.BPF, cap.PERFMON), change: func(f *facts) { f.cgroups = errors.New("not mounted") },
			want: "cgroup2", parts: "mount -t cgroup2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.change != nil {
				tc.change(&tc.facts)
			}
			var bad []capture.Finding
			for _, f := range judge(tc.facts) {
				if f.Detail == "" || f.Lost == "" || !f.OK && f.Remedy == "" {
					t.Errorf("says too little: %+v", f)
				}
				if !f.OK {
					bad = append(bad, f)
				}
			}
			switch {
			case tc.want == "" && len(bad) > 0:
				t.Errorf("%+v", bad)
			case tc.want == "":
			case len(bad) != 1 || bad[0].What != tc.want || bad[0].Required != tc.stops || !strings.Contains(bad[0].Remedy, tc.parts):
				t.Errorf("%+v, expected %s with a remedy that names %s", bad, tc.want, tc.parts)
			}
		})
	}
}

// Lockdown that cannot be looked at is unknown, not absent.
func TestLockdownIsReported(t *testing.T) {
	for _, tc := range []struct {
		facts facts
		want  string
		ok    bool
	}{
		{facts{securityfs: true}, "none", true},
		{facts{securityfs: true, lockdown: "[none] integrity confidentiality"}, "none", true},
		{facts{securityfs: true, lockdown: "none [integrity] confidentiality"}, "integrity", true},
		{facts{securityfs: true, lockdown: "none integrity [confidentiality]"}, "confidentiality", false},
		{facts{}, "unknown: /sys/kernel/security is not mounted here", true},
	} {
		if got := tc.facts.lockedDown(); got.Detail != tc.want || got.OK != tc.ok {
			t.Errorf("%+v: %q, %t, expected %q, %t", tc.facts, got.Detail, got.OK, tc.want, tc.ok)
		}
	}
}
