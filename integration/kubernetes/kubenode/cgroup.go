package kubenode

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is the parent of all pods of the node, in every hierarchy.
const Cgroup = "dnstrace-kubernetes"

const cgroupfs = "/sys/fs/cgroup"

// hierarchies are the cgroup file systems of the machine: one, or one a controller.
func hierarchies(t testing.TB) []string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupfs, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroupfs}
	}
	entries, err := os.ReadDir(cgroupfs)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() {
			list = append(list, filepath.Join(cgroupfs, e.Name()))
		}
	}
	return list
}

// unified is where processes have a cgroup of version 2: the only hierarchy, or the one
// beside those of version 1.
func unified() string {
	if dir := filepath.Join(cgroupfs, "unified"); exists(dir) {
		return dir
	}
	return cgroupfs
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// makeCgroup makes the parent of the pods in every hierarchy; it goes with the test.
func makeCgroup(t testing.TB) {
	t.Helper()
	list := hierarchies(t)
	removeCgroups(t, list)
	t.Cleanup(func() { removeCgroups(t, list) })
	for _, h := range list {
		dir := filepath.Join(h, Cgroup)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if h == cgroupfs {
			for _, parent := range []string{h, dir} {
				Write(t, filepath.Join(parent, "cgroup.subtree_control"), "+cpu +cpuset +memory +pids")
			}
		}
		// Without them no process can be in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(h, file)); err == nil && h != cgroupfs {
				Write(t, filepath.Join(dir, file), strings.TrimSpace(string(value)))
			}
		}
	}
}

// Write writes a file that only root can read.
func Write(t testing.TB, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

// removeCgroups removes what is below the parent, and it, once its processes have
// ended.
func removeCgroups(t testing.TB, list []string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left := 0
		for _, h := range list {
			var dirs []string
			err := filepath.WalkDir(filepath.Join(h, Cgroup), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for i := len(dirs) - 1; i >= 0; i-- {
				if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
					left++
				}
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d cgroups below %s are still in use", left, Cgroup)
			return
		}
	}
}
