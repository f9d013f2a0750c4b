// Package recordfile opens the files that records are appended to, or packets written to.
//
// A process that writes to a path that other users can change writes where those users
// choose, with more rights than they have. So a file is taken only if no other user can
// change its content or what its path leads to.
package recordfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

// Modes of a file that is made: records hold the names that people look up, and packets all
// that was in them.
const (
	modeRecords = 0o640
	modePackets = 0o600
)

// Open opens a file to append to and to read, and makes it if need be, with mode 0640.
// The error is a [*fs.PathError] that says what is wrong with the path, and what to do.
// Open does not wait, whatever stands at the path. It takes
//
//   - a regular file with one name, no link, pipe or device, and none of those by which
//     the kernel takes commands (/proc, /sys),
//   - of this process's user, to which nobody else may write,
//   - in a folder in which, as in all above it, nobody but this user and root may
//     write, or which is sticky, as /tmp is: others cannot replace the file there.
//
// The caller must close the file.
func Open(path string) (*os.File, error) {
	f, err := open(path, modeRecords)
	if err != nil {
		return nil, refused("append to", path, err)
	}
	return f, nil
}

// Create opens a file as [Open] does, and empties it; one that it makes has mode 0600.
func Create(path string) (*os.File, error) {
	f, err := open(path, modePackets)
	if err != nil {
		return nil, refused("write to", path, err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(refused("write to", path, err), f.Close())
	}
	return f, nil
}

func refused(op, path string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err // of whatever part of the path
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func open(path string, mode fs.FileMode) (*os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := (trustedpath.Rules{Sticky: true}).Folder(filepath.Dir(abs)); err != nil {
		return nil, err
	}
	if err := onDisk(func(fs *syscall.Statfs_t) error { return syscall.Statfs(filepath.Dir(abs), fs) }); err != nil {
		return nil, err
	}
	// Opening is enough to disturb some devices. Once the folder is known to be safe, a
	// file of ours cannot become one of those.
	if info, err := os.Lstat(abs); err == nil {
		if err := checkFile(info, abs); err != nil {
			return nil, err
		}
	}
	// What another put into a sticky folder just now is still not followed, nor waited for.
	const careful = syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_NOCTTY
	f, err := os.OpenFile(abs, os.O_RDWR|os.O_APPEND|os.O_CREATE|careful, mode)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkFile(info, abs)
	}
	if err == nil {
		err = onDisk(func(fs *syscall.Statfs_t) error { return syscall.Fstatfs(int(f.Fd()), fs) })
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// kernels are the file systems of which a file is no file but a part of the kernel, to
// which what is written is a command (include/uapi/linux/magic.h).
var kernels = map[uint32]string{
	0x9fa0: "proc", 0x62656572: "sysfs", 0x27e0eb: "cgroup", 0x63677270: "cgroup2", 0x64626720: "debugfs", 0x74726163: "tracefs",
	0x73636673: "securityfs", 0x62656570: "configfs", 0xcafe4a11: "bpf", 0xf97cff8c: "selinuxfs", 0x43415d53: "smackfs", 0xde5e81e4: "efivarfs",
	0x6165676c: "pstore", 0x42494e4d: "binfmt_misc", 0x7655821: "resctrl", 0x19800202: "mqueue",
}

// onDisk tells whether a file system keeps what is written.
func onDisk(stat func(*syscall.Statfs_t) error) error {
	var fs syscall.Statfs_t
	if err := stat(&fs); err != nil {
		return err
	}
	if name, is := kernels[uint32(fs.Type)]; is {
		return fmt.Errorf("it is a part of the kernel (%s), which keeps no records: choose another folder", name)
	}
	return nil
}

// checkFile tells what makes a file unfit.
func checkFile(info fs.FileInfo, path string) error {
	switch info.Mode().Type() {
	case 0:
	case fs.ModeSymlink:
		return errors.New("it is a symbolic link, and links are not followed: name the file itself")
	case fs.ModeDir:
		return fmt.Errorf("it is a folder: name a file in it, such as %s", filepath.Join(path, "records.jsonl"))
	default:
		return fmt.Errorf("it is a %s: expected a regular file; what reads along can have standard output", kind(info.Mode()))
	}
	stat := info.Sys().(*syscall.Stat_t) // what os gives on this system
	switch self := os.Geteuid(); {
	case int(stat.Uid) != self:
		return fmt.Errorf("it belongs to user %d, who could change what is written as user %d: remove it, or chown %d %s", stat.Uid, self, self, path)
	case trustedpath.OthersWrite(info):
		return fmt.Errorf("others may write to it (mode %v): chmod go-w %s", info.Mode(), path)
	case stat.Nlink > 1:
		return fmt.Errorf("it is the same file as another name (%d hard links): name another", stat.Nlink)
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}
