package capture

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock converts the kernel's monotonic time to UTC. The two clocks drift apart when the
// system's time is stepped or slewed, so Sync must be called regularly; it costs some 200 ns.
type Clock struct {
	offset int64 // ns to add to the monotonic clock
	within int64 // ns that the offset may be off
}

// Sync reads both clocks: the system's time between two readings of the monotonic clock.
// Of a few tries the one with the shortest interval counts; the error is at most half of
// it, a few tens of nanoseconds.
func (c *Clock) Sync() {
	const tries = 5
	best := int64(1<<63 - 1)
	for range tries {
		var wall unix.Timespec
		before := Now()
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &wall)
		after := Now()
		if width := after - before; width < best {
			best = width
			c.offset, c.within = wall.Nano()-before-width/2, (width+1)/2
		}
	}
}

// Within returns the error bound of Wall, relative to the system's time at the last Sync.
func (c *Clock) Within() time.Duration { return time.Duration(c.within) }

// Wall returns the UTC time of a monotonic time.
func (c *Clock) Wall(mono int64) time.Time {
	return time.Unix(0, mono+c.offset).UTC()
}
