// Package trustedpath checks whether other users can change what a path leads to. A process
// that appends to such a path, or serves a socket there, does so where those users choose,
// with more rights than they have.
package trustedpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// othersWrite are the bits of a mode by which users other than the owner may write.
const othersWrite = 0o022

// maxSocket is what sun_path of a socket address holds (unix(7)), without the zero byte at its end.
const maxSocket = 107

// maxLinks is how many symbolic links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

// Rules are what a folder may be.
type Rules struct {
	// Make is the mode of folders that are missing; 0: none is made.
	Make fs.FileMode
	// Sticky allows the folder itself to be one that others may write to, if it is sticky, as
	// /tmp is: they cannot replace what is there, and can be the first at a name. Those above
	// it may always be.
	Sticky bool
}

// Folder requires that only this user and root can replace a folder on the path, and, unless
// it is sticky, write to it. It follows links itself: a safe folder cannot be changed by
// others before the next step. The error says what is wrong, and what to do.
func (r Rules) Folder(dir string) error {
	rest, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	at := "/" // has no link in it
	for links := 0; ; {
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && r.Make == 0:
			return fmt.Errorf("there is no folder %s (%w): make it first", at, syscall.ENOENT)
		case errors.Is(err, fs.ErrNotExist):
			if err := os.Mkdir(at, r.Make); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			continue // and look at what is there now
		case err != nil:
			return err
		}
		rest = strings.TrimLeft(rest, "/")
		if err := r.trusts(at, info, rest == ""); err != nil {
			return err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			if links++; links > maxLinks {
				return fmt.Errorf("%s: %w", dir, syscall.ELOOP)
			}
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			if rest, at = target+"/"+rest, filepath.Dir(at); filepath.IsAbs(target) {
				at = "/"
			}
			rest = strings.TrimLeft(rest, "/")
		}
		if rest == "" {
			return nil
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, name)
	}
}

// trusts judges one folder, or a link to one, on the way or at its end.
func (r Rules) trusts(path string, info fs.FileInfo, last bool) error {
	self, owner := os.Geteuid(), Owner(info)
	trusted := owner == self || owner == 0
	switch mode := info.Mode(); {
	case mode.Type() == fs.ModeSymlink:
		if !trusted {
			return fmt.Errorf("%s is a link of user %d, who can lead it elsewhere: choose another folder", path, owner)
		}
	case !mode.IsDir():
		return fmt.Errorf("%s: %w", path, syscall.ENOTDIR)
	case !trusted:
		return fmt.Errorf("%s belongs to user %d, who could put something else there: choose a folder of user %d or root", path, owner, self)
	case mode&othersWrite != 0 && (mode&fs.ModeSticky == 0 || last && !r.Sticky):
		return fmt.Errorf("%s can be written to by others (mode %v), who could put something else there: chmod go-w %s, or choose another folder", path, mode, path)
	}
	return nil
}

// File requires that only this user and root can change the content of a file, and what its
// path leads to. The error says what is wrong, and what to do.
func File(path string) error {
	for range maxLinks {
		if err := (Rules{Sticky: true}).Folder(filepath.Dir(path)); err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		self, owner := os.Geteuid(), Owner(info)
		switch trusted := owner == self || owner == 0; {
		case info.Mode().Type() == fs.ModeSymlink && !trusted:
			return fmt.Errorf("%s is a link of user %d, who can lead it elsewhere: name the file itself", path, owner)
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if !filepath.IsAbs(target) { // .. is the parent of what a link to a folder leads to
				dir, err := filepath.EvalSymlinks(filepath.Dir(path))
				if err != nil {
					return err
				}
				target = filepath.Join(dir, target)
			}
			path = target
		case !trusted:
			return fmt.Errorf("%s belongs to user %d: copy it to one of user %d or root", path, owner, self)
		case OthersWrite(info):
			return fmt.Errorf("%s can be written to by others (mode %v): chmod go-w %s", path, info.Mode(), path)
		default:
			return nil
		}
	}
	return fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// Socket requires that the path of a socket names a file. An abstract socket (unix(7)) has no
// mode and no folder: any process may connect to it, or bind it first.
func Socket(path string) error {
	switch {
	case path == "", path[0] == '@':
		return fmt.Errorf("%q names no file, and a socket without one is anybody's: choose a path such as /run/dnstrace/NAME.sock", path)
	case len(path) > maxSocket:
		return fmt.Errorf("the path has %d bytes: expected at most %d, which is what a socket address holds", len(path), maxSocket)
	}
	return nil
}

// Owner returns the id of the user whose a file is.
func Owner(info fs.FileInfo) int {
	return int(info.Sys().(*syscall.Stat_t).Uid) // what os gives on this system
}

// OthersWrite tells whether users other than its owner may write to a file.
func OthersWrite(info fs.FileInfo) bool { return info.Mode()&othersWrite != 0 }
