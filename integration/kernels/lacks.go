package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

// lack is a feature that a kernel is expected not to have, and why.
type lack struct {
	feature feature.Feature
	why     string
}

// What Linux did not have yet.
var (
	noProcess = lack{feature.Process, "bpf_task_pt_regs is in Linux 5.15 and later"}
	noReason  = lack{feature.Reason, "kfree_skb has a reason in Linux 5.17 and later"}
	noSilent  = lack{feature.Silent, "an attached iterator is readable without privileges in Linux 5.19 and later"}
	noFewest  = lack{feature.FewestTCP, "Debian's kernel.perf_event_paranoid is 3, and tracing programs may call bpf_dynptr_from_skb in Linux 6.12 and later"}
	noReading = lack{feature.Reading, "the tracepoint sock_recv_length is in Linux 6.3 and later"}
	noNetkit  = lack{feature.Netkit, "netkit devices are in Linux 6.7 and later"}
	noProgram = lack{feature.Program, "BPF_PROG_TYPE_NETFILTER is in Linux 6.4 and later"}
)

// lostModules are absent where Debian's archive has kept the kernel of a series that
// is over, and not its modules.
var lostModules = []lack{
	{feature.Nftables, "nf_tables is a module, and the archive has none of this kernel"},
	{feature.IPVS, "ip_vs and veth are modules, and the archive has none of this kernel"},
	{feature.Overlay, "vxlan, 8021q and veth are modules, and the archive has none of this kernel"},
	{feature.Routes, "veth is a module, and the archive has none of this kernel"},
}

// foreignTools are absent where the programs of this machine do not run.
var foreignTools = []lack{
	{feature.Nftables, "nft of this machine is of another architecture"},
	{feature.IPVS, "ipvsadm of this machine is of another architecture"},
}

// lists says by architecture and series what is expected to be absent. What is
// absent and not listed makes the tests fail, as does what is listed and present.
var lists = map[string]map[string][]lack{
	"amd64": {
		"5.10": {noFewest, noProcess, noReason, noSilent, noReading, noProgram, noNetkit},
		"6.1":  {noFewest, noReading, noProgram, noNetkit},
		"6.12": {},
		"6.19": lostModules,
		"7.0":  lostModules,
		"7.2":  {},
	},
	"arm64": {
		"6.12": foreignTools,
	},
}

// lacksOf returns the list of a kernel's series.
func lacksOf(arch, version string) ([]lack, error) {
	list, ok := lists[arch][series(version)]
	if !ok {
		return nil, fmt.Errorf("nothing says what Linux %s of %s is expected to lack: list it in integration/kernels/lacks.go", version, arch)
	}
	return list, nil
}

// series returns the first two numbers of a version.
func series(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// verdicts reads what the tests said of a kernel out of what it printed.
func verdicts(out string) map[feature.Feature]feature.Verdict {
	found := map[feature.Feature]feature.Verdict{}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		for _, v := range []feature.Verdict{feature.Proven, feature.Absent} {
			if name, ok := strings.CutPrefix(line, string(v)+" "); ok {
				found[feature.Feature(name)] = v
			}
		}
	}
	return found
}

// judge wants a verdict on every feature, and the listed ones absent.
func judge(found map[feature.Feature]feature.Verdict, list []lack) error {
	for _, f := range feature.All {
		want := feature.Proven
		if slices.ContainsFunc(list, func(l lack) bool { return l.feature == f }) {
			want = feature.Absent
		}
		switch got := found[f]; got {
		case want:
		case "":
			return fmt.Errorf("no test said anything of %s", f)
		default:
			return fmt.Errorf("%s: %s, expected %s", f, got, want)
		}
	}
	return nil
}

// table draws what was proven and what is absent, a column a kernel, and why the
// latter is.
func table(results []result) string {
	width := 0
	for _, f := range feature.All {
		width = max(width, len(f))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", width, "")
	for _, r := range results {
		fmt.Fprintf(&b, "  %-6s", series(r.version))
	}
	for _, f := range feature.All {
		fmt.Fprintf(&b, "\n%-*s", width, f)
		for _, r := range results {
			word := map[feature.Verdict]string{feature.Proven: "proven", feature.Absent: "absent", "": "-"}[r.found[f]]
			fmt.Fprintf(&b, "  %-6s", word)
		}
	}
	b.WriteString("\n")
	for _, r := range results {
		for _, l := range r.lacks {
			if r.found[l.feature] == feature.Absent {
				fmt.Fprintf(&b, "%s lacks %s: %s\n", series(r.version), l.feature, l.why)
			}
		}
	}
	return b.String()
}
