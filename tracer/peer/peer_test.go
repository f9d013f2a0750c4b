package peer

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// This process is found with its cgroup; of another PID namespace a number says nothing,
// and neither does 0.
func TestOf(t *testing.T) {
	own := of(os.Getpid(), 7, true)
	if own.PID != os.Getpid() || own.UID != 7 {
		t.Errorf("%+v", own)
	}
	if began := time.Since(own.Started); own.After(time.Now()) || began < 0 || began > time.Hour {
		t.Errorf("it started %s ago", began)
	}
	child := exec.Command("sleep", "60")
	before := time.Now()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(child.Process.Kill(), child.Wait()) }()
	if c := of(child.Process.Pid, 7, true); !c.After(before.Add(-time.Second)) || c.After(time.Now()) {
		t.Errorf("%+v", c)
	}
	elsewhere := of(os.Getpid(), 7, false)
	if elsewhere.PID != 0 || elsewhere.Cgroup != own.Cgroup || elsewhere.Container != own.Container {
		t.Errorf("%+v, expected %+v without its number", elsewhere, own)
	}
	if got := of(0, 7, true); got != (Process{UID: 7}) {
		t.Errorf("%+v", got)
	}
	// A process that ended may have had the number for a moment only.
	if got := of(1<<30, 7, true); got.PID != 1<<30 || got.UID != 7 || !got.Ended || !got.After(time.Now().Add(-time.Second)) {
		t.Errorf("one that there is not: %+v", got)
	}
}

func TestIn(t *testing.T) {
	const id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for _, tc := range []struct {
		p    Process
		path string
		want bool
	}{
		{Process{Cgroup: "/system.slice/coredns.service"}, "/system.slice/coredns.service", true},
		{Process{Cgroup: "/"}, "/", true},
		{Process{Cgroup: "/system.slice/coredns.service"}, "/system.slice", false},
		{Process{Container: id}, "/kubepods/burstable/pod1/" + id, true},
		{Process{Container: id}, "/kubepods/burstable/pod1/b" + id[1:], false},
		{Process{}, "", false},
		{Process{}, "/", false},
	} {
		if got := tc.p.In(tc.path); got != tc.want {
			t.Errorf("%+v in %q: %v", tc.p, tc.path, got)
		}
	}
}
