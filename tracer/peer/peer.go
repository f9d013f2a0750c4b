// Package peer says which process is at the other end of a unix socket, as the kernel tells
// (SCM_CREDENTIALS, unix(7)): it cannot choose that itself, unless it has CAP_SYS_ADMIN.
package peer

import (
	"os"
	"strconv"
	"strings"

	"github.com/dnstrace/dnstrace/tracer/cgroup"
)

// Process is a process that sent a record.
type Process struct {
	PID       int    // in our PID namespace; 0: it is not in there
	UID       uint32 // in our user namespace
	Cgroup    string // path below the root of cgroup2; empty: unknown
	Container string // id of the container; empty: it is in none, or that is unknown
}

// In tells whether the process is in the cgroup at a path.
func (p Process) In(path string) bool {
	return path != "" && (p.Cgroup == path || p.Container != "" && p.Container == cgroup.Container(path))
}

// Of returns the process with these ids, with its cgroup where /proc tells.
func Of(pid int, uid uint32) Process {
	p := Process{PID: pid, UID: uid}
	if pid == 0 {
		return p
	}
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return p // it has ended, or is hidden
	}
	for line := range strings.Lines(string(content)) {
		// That of cgroup2 (cgroups(7)).
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			p.Container = cgroup.Container(path)
			if !strings.HasPrefix(path, "/..") { // of another part of the tree than our cgroup namespace shows
				p.Cgroup = path
			}
		}
	}
	return p
}
