package render

import (
	"math"
	"testing"
	"time"
)

// Durations come from records, which may hold any.
func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 1: "1 ns", 1500: "1.5 µs", 250 * time.Millisecond: "250 ms", -2 * time.Second: "-2.00 s",
		math.MaxInt64: "9223372037 s", math.MinInt64: "-9223372037 s",
	} {
		if got := took(d); got != want {
			t.Errorf("%d: got %q, want %q", int64(d), got, want)
		}
	}
}
