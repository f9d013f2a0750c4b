package onkernel

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

// absent tells whether this kernel should lack a feature. That must be what the list
// of the kernel says, if there is one: a module that could not be loaded must not look
// like a test that passed.
func absent(t *testing.T, f feature.Feature) bool {
	t.Helper()
	lack := !has(t, f)
	if list, ok := os.LookupEnv(feature.LacksVariable); ok {
		if listed := slices.Contains(strings.Split(list, "\n"), string(f)); listed != lack {
			t.Fatalf("%s: absent: %t, on the list of what this kernel lacks: %t", f, lack, listed)
		}
	}
	return lack
}

// lacks is absent for the test that proves the feature, or its absence: it says so
// when it has passed.
func lacks(t *testing.T, f feature.Feature) bool {
	t.Helper()
	lack := absent(t, f)
	t.Cleanup(func() {
		switch {
		case t.Failed():
		case lack:
			say(feature.Absent, f)
		default:
			say(feature.Proven, f)
		}
	})
	return lack
}

// proves is lacks for what no kernel may lack.
func proves(t *testing.T, f feature.Feature) {
	t.Helper()
	if lacks(t, f) {
		t.Fatalf("no %s", f)
	}
}

// said are the lines that say has written.
var said = map[feature.Feature]bool{}

// say writes a line of its own, once, whatever the test has written before it.
func say(v feature.Verdict, f feature.Feature) {
	if !said[f] {
		fmt.Printf("\n%s %s\n", v, f)
	}
	said[f] = true
}

// has tells whether the feature should be there: by the version of the kernel, where
// the test proves both, or by what is needed to set the test up.
func has(t *testing.T, f feature.Feature) bool {
	t.Helper()
	switch f {
	case feature.FewestTCP:
		return os.Getenv(ownMachine) != "" && (atLeast(t, 6, 12) || !strictPerf(t))
	case feature.Process:
		return atLeast(t, 5, 15)
	case feature.Reason:
		return atLeast(t, 5, 17)
	case feature.Silent:
		return atLeast(t, 5, 19)
	case feature.Reading:
		return atLeast(t, 6, 3)
	case feature.Program:
		return atLeast(t, 6, 4)
	case feature.ClockStep:
		return os.Getenv(ownMachine) != ""
	case feature.Nftables:
		// It fails without the kernel's part, too.
		return exec.Command("nft", "list", "tables").Run() == nil
	case feature.IPVS:
		_, err := exec.LookPath("ipvsadm")
		return err == nil && exists("/proc/net/ip_vs") && has(t, feature.Nftables)
	case feature.Overlay:
		return hasOverlays(t)
	case feature.Netkit:
		return hasNetkit()
	case feature.Routes:
		return hasVeth()
	default:
		return true
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
