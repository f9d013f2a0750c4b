package integration

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// fullDisk returns the path of a file on a disk that has no room left.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "page"), make([]byte, 4<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "full.jsonl")
}
