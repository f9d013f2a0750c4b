package onkernel

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

// perfParanoid restricts perf_event_open, by which payload in pages comes before Linux
// 6.12. Debian's kernels have a level 3, their default, at which CAP_PERFMON is not
// enough.
const perfParanoid = "/proc/sys/kernel/perf_event_paranoid"

// strictPerf tells whether that is so.
func strictPerf(t *testing.T) bool {
	t.Helper()
	level, err := os.ReadFile(perfParanoid)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(level)) >= "3" // -1 to 4
}

// What `dnstrace check` says with the capabilities that loading takes, and no others:
// DNS over TCP is seen, or what would help is.
func TestCheckWithFewestCapabilities(t *testing.T) {
	lack := lacks(t, feature.FewestTCP)
	if os.Getenv(ownMachine) == "" {
		return // where others are at work, who is nobody may not even reach the binary
	}
	wantTCP(t, !lack)
	if !lack {
		return
	}
	before, err := os.ReadFile(perfParanoid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(perfParanoid, []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	wantTCP(t, true)
	if err := os.WriteFile(perfParanoid, before, 0); err != nil {
		t.Fatal(err)
	}
}

func wantTCP(t *testing.T, seen bool) {
	t.Helper()
	out := checkWithFewest(t)
	_, line, _ := strings.Cut(out, "TCP on virtual devices")
	said := strings.Contains(line, "remedy: sysctl kernel.perf_event_paranoid=2")
	if !strings.Contains(out, "ok       load and attach") || strings.Contains(out, "ok       TCP on virtual devices") != seen || said == seen {
		t.Errorf("expected DNS over TCP to be seen: %t\n%s", seen, out)
	}
}

func checkWithFewest(t *testing.T) string {
	t.Helper()
	fewest := []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}
	if !atLeast(t, 5, 11) {
		fewest = append(fewest, unix.CAP_SYS_RESOURCE)
	}
	// So that nobody, too, reaches the binary.
	if err := os.Chmod("/", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary(t), "check", "--kubernetes", "off")
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: fewest, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	return string(out)
}
