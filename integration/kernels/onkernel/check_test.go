package onkernel

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

// What is seen at sockets, by which hook: what each shows is tested in package capture,
// which runs on this kernel too.
func TestSockets(t *testing.T) {
	proves(t, feature.Arrival)
	out, err := exec.Command(binary(t), "check", "--kubernetes", "off").CombinedOutput()
	if err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	want := []string{"ok       arrival at sockets       UDP and TCP by cgroup_skb/ingress"}
	if lacks(t, feature.Reading) {
		want = append(want, "limited  reading from sockets")
	} else {
		want = append(want, "ok       reading from sockets")
	}
	for _, line := range want {
		if !strings.Contains(string(out), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

// What `dnstrace check` says is limited on this kernel, and that it says what
// would help.
func TestCheck(t *testing.T) {
	out, err := exec.Command(binary(t), "check", "--kubernetes", "off").CombinedOutput()
	if err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	t.Logf("\n%s", out)
	var limited []string
	lines := strings.Split(string(out), "\n")
	for i, line := range lines {
		rest, ok := strings.CutPrefix(line, "limited")
		if !ok {
			continue
		}
		what, _, _ := strings.Cut(strings.TrimSpace(rest), "  ")
		limited = append(limited, what)
		if !strings.Contains(lines[i+1], "without it: ") || !strings.Contains(lines[i+2], "remedy: ") {
			t.Errorf("%s: neither what is lost nor a remedy:\n%s", what, out)
		}
	}
	for _, l := range []struct {
		what    string
		feature feature.Feature
		remedy  string
	}{
		{"drop reasons", feature.Reason, "Linux 5.17 or later"},
		{"TCP on virtual devices", feature.TCP, "perf_event_open"},
		{"processes", feature.Process, "Linux 5.15 or later"},
		{"silent servers", feature.Silent, "Linux 5.19 or later"},
		{"arrival at sockets", feature.Arrival, "CAP_NET_ADMIN"},
		{"reading from sockets", feature.Reading, "Linux 6.3 or later"},
	} {
		if want := absent(t, l.feature); slices.Contains(limited, l.what) != want {
			t.Errorf("%s limited: %t, expected %t", l.what, !want, want)
		} else if want && !strings.Contains(string(out), l.remedy) {
			t.Errorf("%s: no word of %s", l.what, l.remedy)
		}
	}
	if want := !atLeast(t, 5, 19); slices.Contains(limited, "runs left out") != want {
		t.Errorf("runs left out limited: %t, expected %t", !want, want)
	}
	// Nothing here can be right where packets of one moment have no order.
	if slices.Contains(limited, "clock") {
		t.Error("the clock is too coarse to put packets in order")
	}
}
