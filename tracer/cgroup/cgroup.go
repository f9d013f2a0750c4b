// Package cgroup names the cgroups that packets carry the ids of, and tells which
// are containers.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of what is remembered, and of looking for more: pods come and go, and who may make
// cgroups can make any number of them.
const (
	maxPaths   = 32768
	retryAfter = time.Second // an id that was not found is not looked for again before
	// lookShare is the part of the time that looking may take, and maxLook what it may take at
	// once: the names of some sixty pods that start together, on a node with 600 cgroups.
	lookShare = 20
	maxLook   = 500 * time.Millisecond
)

// Names names cgroups by id, which is the inode of their directory in cgroup2. Not safe
// for concurrent use.
type Names struct {
	root  string // where cgroup2 is mounted
	known map[uint64]group
	now   func() time.Time
	most  int           // of known
	room  *rate.Limiter // of ns that may go into looking
}

type group struct {
	path, container string
	tried           time.Time // when it was looked for and not found; zero: it is known
}

// Open finds cgroup2. The error says what is missing; a nil Names names nothing.
func Open() (*Names, error) {
	root, err := MountPoint()
	if err != nil {
		return nil, err
	}
	return newNames(root, time.Now), nil
}

func newNames(root string, now func() time.Time) *Names {
	return &Names{root: root, known: map[uint64]group{}, now: now, most: maxPaths,
		room: rate.NewLimiter(rate.Limit(time.Second/lookShare), int(maxLook))}
}

// MountPoint returns where cgroup2 is mounted. The error says what is missing.
func MountPoint() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cgroups: %w", err)
	}
	defer f.Close()
	return mountPoint(f)
}

// mountPoint finds where cgroup2 is mounted (proc_pid_mountinfo(5)): behind a
// hyphen stands the type of a filesystem.
func mountPoint(mountinfo io.Reader) (string, error) {
	scanner := bufio.NewScanner(mountinfo)
	for scanner.Scan() {
		mount, kind, _ := strings.Cut(scanner.Text(), " - ")
		fields := strings.Fields(mount)
		if strings.HasPrefix(kind, "cgroup2 ") && len(fields) >= 5 {
			return unescape(fields[4]), nil
		}
	}
	if err := scanner.Err(); err != nil {
		return "", fmt.Errorf("cgroups: %w", err)
	}
	return "", errors.New("cgroups: cgroup2 is not mounted: containers are not named; mount it at /sys/fs/cgroup")
}

// unescape undoes what the kernel does to blanks in a path: \040.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if len(after) >= 3 {
			if c, err := strconv.ParseUint(after[:3], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = after[3:]
				continue
			}
		}
		b.WriteByte('\\')
		s = after
	}
}

// Cgroup returns the path of a cgroup below the root of cgroup2, and the id of the
// container that it is or that it is in; empty where they are unknown. The root's
// path is "/".
func (n *Names) Cgroup(id uint64) (path, container string) {
	if n == nil || id == 0 {
		return "", ""
	}
	g, known := n.known[id]
	if known && (g.tried.IsZero() || n.now().Sub(g.tried) < retryAfter) {
		return g.path, g.container
	}
	begin := n.now()
	if n.room.TokensAt(begin) < 1 {
		return g.path, g.container // unknown, until there is time to look
	}
	if len(n.known) >= n.most {
		clear(n.known)
	}
	n.learn()
	// What it took beyond what there is delays the next look.
	n.room.ReserveN(begin, int(min(n.now().Sub(begin), maxLook)))
	if g, known = n.known[id]; !known || !g.tried.IsZero() {
		if len(n.known) < n.most {
			n.known[id] = group{tried: n.now()}
		}
		return "", ""
	}
	return g.path, g.container
}

// learn looks through all cgroups and remembers them, as far as there is room. It takes 8 ms for 600 of them;
// to open one by its id would take CAP_DAC_READ_SEARCH, with which a process may
// read every file of the node.
func (n *Names) learn() {
	// What cannot be read is gone meanwhile.
	_ = filepath.WalkDir(n.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if len(n.known) >= n.most {
			return fs.SkipAll
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		below, err := filepath.Rel(n.root, path)
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			at := filepath.Join("/", below)
			n.known[st.Ino] = group{path: at, container: Container(at)}
		}
		return nil
	})
}
