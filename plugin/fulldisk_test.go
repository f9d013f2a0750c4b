package dnstrace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// tinyDisk names the folder on which a test mounts a file system of its own, in
// the mount namespace that ends with it.
const tinyDisk = "DNSTRACE_TINY_DISK"

// A file system that is full costs records, not answers; when there is room
// again, records go on behind the line that was cut off.
func TestFullFileSystem(t *testing.T) {
	if dir := os.Getenv(tinyDisk); dir != "" {
		fillDisk(t, dir)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), tinyDisk+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		// Who is not root may mount only where it is: in a user namespace of its own.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
	}
}

func fillDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	cutAtNewline(t, filepath.Join(dir, "newline.jsonl"))
	path := filepath.Join(dir, "records.jsonl")
	const clients, each, rounds = 2, 200, 2
	s := withOutputs(t, 2000, "output file "+path)
	askMany(t, s, clients, each)
	eventually(t, func() bool { return fateOf(t, "file "+path).all() == clients*each })
	full := fateOf(t, "file "+path)
	if full.written == 0 || full.lost[causeWriteError] == 0 || len(full.lost) != 1 {
		t.Errorf("full: %v written and %v lost", full.written, full.lost)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	askMany(t, s, clients, each)
	s.stop()
	f := fateOf(t, "file "+path)
	if f.all() != rounds*clients*each || f.since(full).written != clients*each {
		t.Errorf("%v written and %v lost of %d lookups, %v written while the disk was full", f.written, f.lost, rounds*clients*each, full.written)
	}
	whole, cut := countLines(t, path)
	if float64(whole) != f.written || cut > 1 {
		t.Errorf("the file has %d records and %d lines that are none; the metric says %v", whole, cut, f.written)
	}
	if n := len(readRecords(t, s.records)); n != rounds*clients*each {
		t.Errorf("the other file has %d records of %d lookups", n, rounds*clients*each)
	}
}

// cutAtNewline fills the disk with a record but for its newline: that one is written.
func cutAtNewline(t *testing.T, path string) {
	t.Helper()
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := append(bytes.Repeat([]byte{'x'}, 64<<10), '\n')
	if n, err := f.write(t.Context(), append(line, "next\n"...)); n != 1 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d lines: %v", n, err)
	}
	if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
}

// countLines counts the records in a file, and the lines that are none.
func countLines(t *testing.T, path string) (whole, cut int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for r := trace.NewReader(bytes.NewReader(content)); ; {
		_, _, err := r.Read()
		var broken *trace.LineError
		switch {
		case errors.Is(err, io.EOF):
			return whole, cut
		case errors.As(err, &broken):
			cut++
		case err != nil:
			t.Fatal(err)
		default:
			whole++
		}
	}
}
