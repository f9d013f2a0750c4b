// Package peer identifies the process at the other end of a unix socket by its credentials
// from the kernel (SCM_CREDENTIALS, unix(7)): it cannot choose them, unless it has
// CAP_SYS_ADMIN.
package peer

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/tracer/cgroup"
)

// Process is a process that sent a record.
type Process struct {
	PID       int       // in the node's own PID namespace, as in packets; 0: unknown
	UID       uint32    // in our user namespace
	Cgroup    string    // path below the root of cgroup2; empty: unknown
	Container string    // id of the container; empty: it is in none, or that is unknown
	Started   time.Time // zero: unknown
	Ended     bool      // before it was looked at: Started is then, since it may have been any with that number
}

// clocks bounds the difference of the clocks of process starts, which has hundredths of a
// second, and of packets.
const clocks = 100 * time.Millisecond

// After tells whether the process started after a time: its number was another process's
// then.
func (p Process) After(t time.Time) bool {
	return !p.Started.IsZero() && p.Started.After(t.Add(clocks))
}

// In tells whether the process is in the cgroup at a path.
func (p Process) In(path string) bool {
	return path != "" && (p.Cgroup == path || p.Container != "" && p.Container == cgroup.Container(path))
}

// nodePIDNS is the inode of the node's own PID namespace (PROC_PID_INIT_INO in
// include/linux/proc_ns.h).
const nodePIDNS = "pid:[4026531836]"

// OnNode tells whether our PID namespace is the node's own, whose numbers packets have.
var OnNode = sync.OnceValue(func() bool {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && namespace == nodePIDNS
})

// Of returns the process with these ids of our namespaces, with its cgroup if /proc shows it.
func Of(pid int, uid uint32) Process {
	return of(pid, uid, OnNode())
}

func of(pid int, uid uint32, onNode bool) Process {
	p := Process{UID: uid}
	if pid == 0 {
		return p
	}
	if onNode { // another number may be anybody's
		p.PID = pid
	}
	// Signal 0 asks whether it is there, also where /proc hides it; deploy/seccomp has no kill(2).
	if p.Started = started(pid); p.Started.IsZero() && errors.Is(unix.Tgkill(pid, pid, 0), unix.ESRCH) {
		p.Started, p.Ended = time.Now(), true
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

// startField is where proc_pid_stat(5) has the start of a process, in ticks since the
// machine started, counted behind the name, which may have anything in it.
const (
	startField = 19
	tick       = time.Second / 100 // USER_HZ
)

// started returns when a process started; zero: that is unknown.
func started(pid int) time.Time {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return time.Time{}
	}
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	var now unix.Timespec
	if len(fields) <= startField || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return time.Time{}
	}
	ticks, err := strconv.ParseInt(fields[startField], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(ticks)*tick - time.Duration(now.Nano()))
}
