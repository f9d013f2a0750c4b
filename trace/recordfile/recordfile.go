// Package recordfile opens the files that records are appended to.
//
// Whoever appends to a path that others can change writes where those others want,
// with more rights than they have. So a file is taken only if no other user can
// change its content or what its path leads to.
package recordfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// mode is that of a file that Open makes: records hold the names that people look up.
const mode = 0o640

// othersWrite are the bits of a mode by which somebody but the owner may write.
const othersWrite = 0o022

// maxLinks is how many symbolic links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

// Open opens a file to append to and to read, and makes it if need be, with mode 0640.
// The error is a [*fs.PathError] that says what is wrong with the path, and what to do.
// Open does not wait, whatever stands at the path. It takes
//
//   - a regular file with one name, no link, pipe or device,
//   - of this process's user, to which nobody else may write,
//   - in a folder in which, as in all above it, nobody but this user and root may
//     write, or which is sticky, as /tmp is: others cannot replace the file there.
//
// The caller must close the file.
func Open(path string) (*os.File, error) {
	f, err := open(path)
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err // of whatever part of the path
	}
	if err != nil {
		return nil, &fs.PathError{Op: "append to", Path: path, Err: err}
	}
	return f, nil
}

func open(path string) (*os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := checkFolder(filepath.Dir(abs)); err != nil {
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
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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
	case info.Mode()&othersWrite != 0:
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

// checkFolder tells who else could change what a path in a folder leads to. It follows
// links itself, since each folder on the way has to be safe: one that is cannot be
// changed by others before the next step.
func checkFolder(folder string) error {
	at, rest := "/", folder // at has no link in it
	for links := 0; ; {
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no folder %s (%w): make it first", at, syscall.ENOENT)
		}
		if err != nil {
			return err
		}
		if err := checkStep(info, at); err != nil {
			return err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			if links++; links > maxLinks {
				return syscall.ELOOP
			}
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			at, rest = filepath.Dir(at), target+"/"+rest
			if filepath.IsAbs(target) {
				at = "/"
			}
		}
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return nil
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, name)
	}
}

// checkStep judges one folder, or a link to one.
func checkStep(info fs.FileInfo, path string) error {
	self := os.Geteuid()
	switch owner := int(info.Sys().(*syscall.Stat_t).Uid); {
	case owner != self && owner != 0:
		return fmt.Errorf("user %d could replace it, whose %s is: choose a folder of user %d or root", owner, path, self)
	case info.IsDir() && info.Mode()&othersWrite != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("others could replace it, since they may write to %s (mode %v): chmod go-w %s, or choose another folder", path, info.Mode(), path)
	}
	return nil
}
