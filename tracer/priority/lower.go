// Package priority makes the tracer give way: DNS comes first.
package priority

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// nice is the nice value of the tracer (sched(7)): beside one busy thread of the usual
// priority a thread gets 110 parts in 1,134 of a processor, and all of it where it is idle.
// With 19 it would be 15 in 1,039, and DNS no faster for it: under a saturated server the
// throughput was the same, and on a busy machine the tracer needed minutes for what it had
// read, and longer to end than the sender of SIGTERM waits.
const nice = 10

// slice is how long a thread of the tracer may go on before one that becomes ready
// takes its place, in ns: the shortest that the kernel takes for a thread of the usual
// policy (Linux 6.12 and later, kernel/sched/syscalls.c; earlier ones have none). With
// the usual 3 ms a lookup that found both processors taken waited for so long, however
// low the priority: at 5,000 a second the mean was 40 us longer than without a tracer,
// and is 20 with this, and a saturated server answers a tenth more.
const slice = 100_000

// low is the attribute of each thread. A package variable does not move while the kernel
// reads it, as a variable on the stack may.
var low = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: nice, Runtime: slice}

// Lower gives every thread of this process, and those that come, a low
// priority and a short slice. It takes no privilege; undoing the former does.
//
// The kernel compares it with that of the threads in the same cgroup alone. What
// a pod gets beside other pods is decided by its request for CPU: a small one
// makes the tracer give way there.
//
// One that was started with the policy SCHED_IDLE (systemd's CPUSchedulingPolicy=idle)
// has a lower one already, which it may not leave, and keeps it.
func Lower() error {
	_, _, errno := psx.Syscall3(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&low)), 0)
	if errno == 0 {
		return nil
	}
	if own, err := unix.SchedGetAttr(0, 0); err == nil && own.Policy == unix.SCHED_IDLE {
		return nil
	}
	return fmt.Errorf("lower the priority to nice %d: sched_setattr(2): %w; a seccomp profile has to allow it", nice, errno)
}
