package trace

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Seconds is a duration that JSON shows as a number of seconds, exact to the
// nanosecond.
type Seconds time.Duration

// SecondsPtr returns d as the pointer that optional fields hold.
func SecondsPtr(d time.Duration) *Seconds {
	s := Seconds(d)
	return &s
}

// Duration returns s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// String returns s for people: three digits and a unit, such as "2.00 s", "13.4 ms", "78.6 µs".
func (s Seconds) String() string {
	d := s.Duration()
	if d < 0 {
		return "-" + Seconds(d.Abs()).String() // also of the least there is
	}
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"s", time.Second}, {"ms", time.Millisecond}, {"µs", time.Microsecond}} {
		v := float64(d) / float64(unit.size)
		if v >= 0.9995 {
			decimals := max(0, 2-int(math.Floor(math.Log10(v*1.0005))))
			if unit.size == time.Microsecond {
				decimals = min(decimals, 1)
			}
			return strconv.FormatFloat(v, 'f', decimals, 64) + " " + unit.name
		}
	}
	if d == 0 {
		return "0"
	}
	return strconv.FormatInt(d.Nanoseconds(), 10) + " ns"
}

// appendJSON appends the shortest decimal fraction that says s exactly.
func (s Seconds) appendJSON(b []byte) []byte {
	n := uint64(s)
	if s < 0 {
		b = append(b, '-')
		n = -n
	}
	b = strconv.AppendUint(b, n/1e9, 10)
	frac := uint32(n % 1e9) // dividing 32 bits is cheaper
	if frac == 0 {
		return b
	}
	b = appendNine(append(b, '.'), frac)
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// MarshalJSON implements json.Marshaler, for readers that use the types.
func (s Seconds) MarshalJSON() ([]byte, error) { return s.appendJSON(nil), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return fmt.Errorf("expected a number of seconds, got %s", b)
	}
	ns := math.Round(f * 1e9)
	if math.Abs(ns) >= math.MaxInt64 {
		return fmt.Errorf("a duration of %s seconds is out of range", b)
	}
	*s = Seconds(ns)
	return nil
}
