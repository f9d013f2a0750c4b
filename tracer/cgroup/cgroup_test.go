package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestContainer(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	other := strings.Repeat("f", 64)
	const pod = "podd5a4b0b8_2d7e_4a1b_9d0c_3c1f0f4a2b11"
	for _, tc := range []struct{ name, path, want string }{
		{"docker, cgroupfs", "/docker/" + id, id},
		{"docker, systemd", "/system.slice/docker-" + id + ".scope", id},
		{"containerd, systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" + pod + ".slice/cri-containerd-" + id + ".scope", id},
		{"containerd, cgroupfs", "/kubepods/besteffort/" + pod + "/" + id, id},
		{"containerd, systemd's names for cgroupfs", "/system.slice/kubepods-" + pod + ".slice:cri-containerd:" + id, id},
		{"cri-o", "/kubepods.slice/kubepods-" + pod + ".slice/crio-" + id + ".scope", id},
		{"cri-o, below", "/kubepods.slice/kubepods-" + pod + ".slice/crio-" + id + ".scope/container", id},
		{"podman", "/machine.slice/libpod-" + id + ".scope", id},
		{"nerdctl", "/system.slice/nerdctl-" + id + ".scope", id},
		{"systemd inside a container", "/system.slice/docker-" + id + ".scope/init.scope", id},
		{"kind: a container in a container", "/docker/" + other + "/kubelet.slice/kubelet-kubepods.slice/cri-containerd-" + id + ".scope", id},
		{"monitor of cri-o", "/kubepods.slice/crio-conmon-" + id + ".scope", ""},
		{"monitor of podman", "/machine.slice/libpod-conmon-" + id + ".scope", ""},
		{"the pod itself", "/kubepods.slice/kubepods-" + pod + ".slice", ""},
		{"a service", "/system.slice/systemd-resolved.service", ""},
		{"a user", "/user.slice/user-0.slice/session-3.scope", ""},
		{"root", "/", ""},
		{"nothing", "", ""},
		{"too short", "/docker/" + id[1:], ""},
		{"not hexadecimal", "/docker/" + strings.Replace(id, "0", "g", 1), ""},
		{"upper case", "/docker/" + strings.ToUpper(id), ""},
		{"longer than an id", "/docker/a" + id, ""},
	} {
		if got := Container(tc.path); got != tc.want {
			t.Errorf("%s: %s: got %q, want %q", tc.name, tc.path, got, tc.want)
		}
	}
}

func TestMountPoint(t *testing.T) {
	for _, tc := range []struct{ name, mountinfo, want string }{
		{"unified", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		{"hybrid", "31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n32 30 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		{"blank in a path", `30 23 0:26 / /mnt/a\040b\134c rw - cgroup2 none rw` + "\n", `/mnt/a b\c`},
		{"none", "31 30 0:27 / /proc rw - proc proc rw\n", ""},
	} {
		got, err := mountPoint(strings.NewReader(tc.mountinfo))
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: got %q, %v", tc.name, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "mount it at") {
			t.Errorf("%s: no remedy: %v", tc.name, err)
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// Any tree of directories will do.
func TestCgroup(t *testing.T) {
	root, now := t.TempDir(), time.Unix(1, 0)
	n := newNames(root, func() time.Time { return now })
	id := strings.Repeat("ab", 32)
	path := filepath.Join(root, "system.slice", "docker-"+id+".scope")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	cgroup := inode(t, path)
	if p, c := n.Cgroup(cgroup); p != "/system.slice/docker-"+id+".scope" || c != id {
		t.Errorf("got %q, %q", p, c)
	}
	if p, _ := n.Cgroup(inode(t, root)); p != "/" {
		t.Errorf("the root is %q", p)
	}
	// What is gone keeps its name: its last packets are under way.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, c := n.Cgroup(cgroup); c != id {
		t.Errorf("after its end: %q", c)
	}
	const unknown = 1 << 60
	if p, c := n.Cgroup(unknown); p != "" || c != "" {
		t.Errorf("unknown: %q, %q", p, c)
	}
	if p, c := (*Names)(nil).Cgroup(cgroup); p != "" || c != "" {
		t.Errorf("without cgroups: %q, %q", p, c)
	}
	if p, c := n.Cgroup(0); p != "" || c != "" {
		t.Errorf("no id: %q, %q", p, c)
	}
}

// Those that were passed on the way need not be looked for.
func TestOneLookFindsAll(t *testing.T) {
	root := t.TempDir()
	n := newNames(root, func() time.Time { return time.Unix(1, 0) })
	first, second := filepath.Join(root, "first"), filepath.Join(root, "second")
	for _, path := range []string{first, second} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	id := inode(t, second)
	if p, _ := n.Cgroup(inode(t, first)); p != "/first" {
		t.Errorf("got %q", p)
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	if p, _ := n.Cgroup(id); p != "/second" {
		t.Errorf("got %q", p)
	}
}

// An id that was not found is looked for again, but not for every packet.
func TestUnknownIsTriedAgain(t *testing.T) {
	root, now := t.TempDir(), time.Unix(1, 0)
	n := newNames(root, func() time.Time { return now })
	path := filepath.Join(root, "late")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	cgroup := inode(t, path)
	n.root = t.TempDir()
	if p, _ := n.Cgroup(cgroup); p != "" {
		t.Fatalf("found %q in an empty tree", p)
	}
	n.root = root
	if p, _ := n.Cgroup(cgroup); p != "" {
		t.Errorf("looked for again at once: %q", p)
	}
	now = now.Add(retryAfter)
	if p, _ := n.Cgroup(cgroup); p != "/late" {
		t.Errorf("later: %q", p)
	}
}

// The live tree, where cgroup2 is mounted.
func TestOwnCgroup(t *testing.T) {
	n, err := Open()
	if err != nil {
		t.Logf("nothing to test with: %v", err)
		return
	}
	entries, err := os.ReadDir(n.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if p, _ := n.Cgroup(inode(t, filepath.Join(n.root, e.Name()))); p != "/"+e.Name() {
				t.Errorf("%s is found as %q", e.Name(), p)
			}
		}
	}
	if p, _ := n.Cgroup(inode(t, n.root)); p != "/" {
		t.Errorf("the root is %q", p)
	}
}

// The maker of a cgroup chooses its name: what is taken for a container's id is in the
// path, and has the length of one.
func FuzzContainer(f *testing.F) {
	id := strings.Repeat("0f", idLength/2)
	for _, path := range []string{"", "/", "///", "/docker/" + id, "/x/crio-conmon-" + id + ".scope", "/kubepods-podx.slice:cri-containerd:" + id, "/a" + id + "/-" + id + ".scope.scope"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if got := Container(path); got != "" && (len(got) != idLength || !strings.Contains(path, got)) {
			t.Errorf("%q: %q", path, got)
		}
	})
}
