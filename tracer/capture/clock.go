package capture

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock converts the kernel's monotonic time to UTC. The two clocks drift apart
// when the system's time is stepped or slewed, so it must be synchronized again
// and again; it costs some 200 ns.
type Clock struct {
	offset int64 // ns to add to the monotonic clock
	within int64 // ns that the offset may be off
}

// Sync reads both clocks. The monotonic clock is read on either side and the
// narrowest of a few tries counts: the other was read at some time between, so the
// error is at most half of that, a few tens of nanoseconds.
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

// Within returns how far off a time may be that Wall returns: beside the system's own
// time at the last Sync, however right that is.
func (c *Clock) Within() time.Duration { return time.Duration(c.within) }

// Wall returns the UTC time of a monotonic time.
func (c *Clock) Wall(mono int64) time.Time {
	return time.Unix(0, mono+c.offset).UTC()
}
