package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dirMode lets a CoreDNS that is not root reach the record socket. What each
// socket allows is its own mode.
const dirMode = 0o755

// maxLinks bounds the symbolic links on a way, as the kernel does (path_resolution(7)).
const maxLinks = 40

// folder makes a directory if need be, and wants nobody but this user and root to be able
// to put something else where a socket in it is looked for: neither in it nor on the way
// to it. In a folder for all (/tmp) its owner can still be the first at a name, and another
// at one that is free again.
func folder(dir, option string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	rest, at := split(dir), "/"
	for links := 0; ; {
		if err := trusted(at, len(rest) == 0, option); err != nil {
			return err
		}
		if len(rest) == 0 {
			return nil
		}
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := os.Mkdir(next, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			continue // and look at what is there now
		case err != nil:
			return err
		case info.Mode().Type() == fs.ModeSymlink:
			if links++; links > maxLinks {
				return fmt.Errorf("%s: %w", dir, syscall.ELOOP)
			}
			if !ours(info) {
				return fmt.Errorf("%s is a link of user %d, who can lead it elsewhere: choose another folder with %s", next, uid(info), option)
			}
			target, err := os.Readlink(next)
			if err != nil {
				return err
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			rest, at = append(split(target), rest[1:]...), "/"
		default:
			rest, at = rest[1:], next
		}
	}
}

// trusted wants a directory to be ours or root's, and that others can put nothing into it;
// on the way it is enough that they can replace nothing in it (sticky(7)).
func trusted(dir string, last bool, option string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	const others = 0o022
	switch mode := info.Mode(); {
	case !info.IsDir():
		return fmt.Errorf("%s: %w", dir, syscall.ENOTDIR)
	case !ours(info):
		return fmt.Errorf("%s belongs to user %d, who could put another socket there: choose a folder of root's or of this user with %s", dir, uid(info), option)
	case mode.Perm()&others != 0 && (last || mode&fs.ModeSticky == 0):
		return fmt.Errorf("%s can be written to by others (mode %#o), who could put another socket there: take that away (`chmod go-w %s`), or choose another folder with %s",
			dir, mode.Perm(), dir, option)
	}
	return nil
}

func ours(info fs.FileInfo) bool {
	id := uid(info)
	return id == 0 || id == os.Geteuid()
}

// uid returns whose a file is.
func uid(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func split(path string) []string {
	return strings.FieldsFunc(filepath.Clean(path), func(r rune) bool { return r == '/' })
}
