package trace

import "encoding/binary"

// SampleThreshold returns what [Sampled] compares with for a rate: the rate
// times 2^32, rounded down. A rate of 1 or more lets every id pass, one of 0 or
// less none.
func SampleThreshold(rate float64) uint64 {
	switch {
	case rate >= 1:
		return 1 << 32
	case rate > 0:
		return uint64(rate * (1 << 32))
	}
	return 0
}

// Sampled reports whether the lookup is among the share rate of all lookups, the
// same for every observer that knows its id: the last 4 bytes of the id, as a
// big-endian number, are below [SampleThreshold]. Being part of the flow, they
// agree on both sides of a step of time; in an id that came in a TRACEPARENT
// they are part of what W3C Trace Context wants random. A lookup that passes at
// one rate passes at every higher one.
func Sampled(id TraceID, rate float64) bool {
	return uint64(binary.BigEndian.Uint32(id[12:])) < SampleThreshold(rate)
}
