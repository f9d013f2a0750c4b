//go:build kubernetes

package kubernetes

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

// cgroup is the parent of all pods of the node.
const cgroup = "dnstrace-kubernetes"

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

// makeCgroup makes the parent of the pods in every hierarchy; it goes with the test.
func makeCgroup(t testing.TB) {
	t.Helper()
	list := hierarchies(t)
	removeCgroups(t, list)
	t.Cleanup(func() { removeCgroups(t, list) })
	for _, h := range list {
		dir := filepath.Join(h, cgroup)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if h == cgroupfs {
			for _, parent := range []string{h, dir} {
				write(t, filepath.Join(parent, "cgroup.subtree_control"), "+cpu +cpuset +memory +pids")
			}
		}
		// Without them no process can be in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(h, file)); err == nil && h != cgroupfs {
				write(t, filepath.Join(dir, file), strings.TrimSpace(string(value)))
			}
		}
	}
}

func write(t testing.TB, path, value string) {
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
			err := filepath.WalkDir(filepath.Join(h, cgroup), func(path string, d fs.DirEntry, err error) error {
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
			t.Errorf("%d cgroups below %s are still in use", left, cgroup)
			return
		}
	}
}
