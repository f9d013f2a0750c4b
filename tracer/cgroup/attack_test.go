package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A client that may make cgroups sends from ever new ones, or from ones that are gone:
// looking for them takes a bounded part of the time. A node that starts a few pods at once
// has all of their names.
func TestCgroupsWithoutEnd(t *testing.T) {
	root, now := t.TempDir(), time.Unix(1, 0)
	const look = 10 * time.Millisecond
	n := newNames(root, func() time.Time { now = now.Add(look); return now })
	appears := func(i int) (found bool) {
		t.Helper()
		path := filepath.Join(root, fmt.Sprint("cgroup", i))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		p, _ := n.Cgroup(inode(t, path))
		return p != ""
	}
	for i := range 20 {
		if !appears(i) {
			t.Errorf("the %dth pod has no name", i+1)
		}
	}
	begin := now
	for id := range uint64(10_000) {
		n.Cgroup(1<<60 + id)
	}
	looks := 0
	for _, g := range n.known {
		if !g.tried.IsZero() { // in vain
			looks++
		}
	}
	if spent, all := time.Duration(looks)*look, now.Sub(begin); spent > all/lookShare+maxLook || looks == 0 {
		t.Errorf("of %s %s went into looking", all, spent)
	}
	now = now.Add(time.Minute)
	if !appears(100) {
		t.Error("none has a name after the attack")
	}
}

// There are more cgroups than are remembered: what there is room for is remembered, and
// the others take none.
func TestMoreCgroupsThanAreKept(t *testing.T) {
	root := t.TempDir()
	n := newNames(root, time.Now)
	n.most = 50
	for i := range 200 {
		if err := os.MkdirAll(filepath.Join(root, fmt.Sprint("a", i%10), fmt.Sprint("b", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for id := range uint64(100) {
		if n.Cgroup(1<<60 + id); len(n.known) > n.most {
			t.Fatalf("%d are remembered", len(n.known))
		}
	}
}
