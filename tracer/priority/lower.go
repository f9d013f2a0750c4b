// Package priority makes the tracer give way: DNS comes first.
package priority

import (
	"fmt"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// nice is how far the tracer steps back (sched(7)): beside one busy thread of the
// usual priority a thread gets 110 parts in 1,134 of a processor, and all of it where
// nobody else wants it. With 19 it would be 15 in 1,039, and DNS no faster for it:
// under a saturated server the throughput was the same, and on a busy machine the
// tracer needed minutes for what it had read, and longer to end than whoever sends
// SIGTERM waits.
const nice = 10

// Lower gives every thread of this process, and those that come, a low
// priority. It takes no privilege; undoing it does.
//
// The kernel compares it with that of the threads in the same cgroup alone. What
// a pod gets beside other pods is decided by its request for CPU: a small one
// makes the tracer give way there.
func Lower() error {
	// Of each thread: setpriority(2) on Linux is about one, whatever POSIX says.
	if _, _, errno := psx.Syscall3(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, nice); errno != 0 {
		return fmt.Errorf("lower the priority to nice %d: %w", nice, errno)
	}
	return nil
}
