package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxNetNS is how many namespaces may be chosen (bpf/netns.h).
const MaxNetNS = 32

// hostName is what the node's own namespace is called in records.
const hostName = "host"

// chosen is a namespace that is observed, where not all are.
type chosen struct {
	path   string // where it is looked for again; empty: it is known by its number alone
	inode  uint32
	device uint64 // of the file system of namespaces: what else stands at path is none
}

// CheckNetNS returns an error that names the first entry for Config.NetNS that is no network
// namespace.
func CheckNetNS(names []string) error {
	_, err := choose(netnsDir, names)
	return err
}

// choose resolves the namespaces that a user names: names as ip-netns(8) has them, the
// node's own as "host", paths, or inode numbers.
func choose(dir string, names []string) ([]chosen, error) {
	if len(names) > MaxNetNS {
		return nil, fmt.Errorf("expected at most %d namespaces, got %d", MaxNetNS, len(names))
	}
	var all []chosen
	for _, name := range names {
		c, err := chooseOne(dir, name)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func chooseOne(dir, name string) (chosen, error) {
	if strings.Contains(name, "/") {
		return openChosen(name)
	}
	if name == "" || name == "." || name == ".." {
		return chosen{}, fmt.Errorf("network namespace %q: expected a name, a path or an inode number", name)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return openChosen(path)
	}
	if name == hostName {
		inode, err := HostNetNS()
		if err != nil {
			return chosen{}, fmt.Errorf("network namespace %s, the node's own: %w; give its number: `stat -Lc %%i /proc/1/ns/net` on the node", name, err)
		}
		return chosen{inode: inode}, nil
	}
	if inode, err := strconv.ParseUint(name, 10, 32); err == nil && inode > 0 {
		return chosen{inode: uint32(inode)}, nil
	}
	return chosen{}, fmt.Errorf("no network namespace %s in %s: `ip netns list` shows those with names, `lsns -t net` all", name, dir)
}

// openChosen resolves a path, which must be that of a network namespace.
func openChosen(path string) (chosen, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return chosen{}, fmt.Errorf("network namespace %s: there is no such file; `lsns -t net` shows what there is", path)
	case err != nil:
		return chosen{}, fmt.Errorf("network namespace: %w; that of another's process takes CAP_SYS_PTRACE", err)
	}
	defer f.Close()
	// A file of another file system has no such request, or another one.
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return chosen{}, fmt.Errorf("%s is not a network namespace: expected a file as in %s, or /proc/PID/ns/net", path, netnsDir)
	}
	st, err := stat(path)
	if err != nil {
		return chosen{}, err
	}
	return chosen{path: path, inode: uint32(st.Ino), device: st.Dev}, nil
}

// renew resolves the path again, and reports whether another namespace, or none, is there
// now. What must not be read any more, as a process's without CAP_SYS_PTRACE, counts as
// unchanged.
func (c *chosen) renew() bool {
	if c.path == "" {
		return false
	}
	inode := uint32(0)
	switch st, err := stat(c.path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return false
	case st.Dev == c.device:
		inode = uint32(st.Ino)
	}
	changed := inode != c.inode
	c.inode = inode
	return changed
}

// inodes returns the numbers in the form that the programs take.
func inodes(all []chosen) (list [MaxNetNS]uint32) {
	for i, c := range all {
		list[i] = c.inode
	}
	return list
}
