package trace

import (
	"fmt"

	"github.com/miekg/dns"
)

// DefaultOptionCode is the EDNS option code of TRACEPARENT until one is
// assigned: in the range for local use (RFC 6891, section 9), and what PowerDNS
// uses.
const DefaultOptionCode = 65500

// Lengths of the data of a TRACEPARENT option: a reader accepts one without
// flags, or without span and flags; a writer sends all.
const (
	traceparentNoSpan  = 18
	traceparentNoFlags = 26
	traceparentFull    = 27
)

// FlagSampled is set in [Traceparent.Flags] when the sender records the lookup.
const FlagSampled = 0x01

// Traceparent is the trace context in an EDNS option: version, reserved, trace
// id (16), span id (8), flags (1).
type Traceparent struct {
	TraceID TraceID
	SpanID  SpanID // zero when the option came without one
	Flags   byte
}

// ParseTraceparent reads the data of a TRACEPARENT option. It fails on another
// length, another version, and a zero trace id, which names nothing.
func ParseTraceparent(data []byte) (Traceparent, error) {
	var t Traceparent
	switch len(data) {
	case traceparentNoSpan, traceparentNoFlags, traceparentFull:
	default:
		return t, fmt.Errorf("TRACEPARENT: expected 18, 26 or 27 bytes, got %d", len(data))
	}
	if data[0] != 0 {
		return t, fmt.Errorf("TRACEPARENT: expected version 0, got %d", data[0])
	}
	copy(t.TraceID[:], data[2:18])
	if t.TraceID.IsZero() {
		return t, fmt.Errorf("TRACEPARENT: the trace id is zero")
	}
	if len(data) >= traceparentNoFlags {
		copy(t.SpanID[:], data[18:26])
	}
	if len(data) == traceparentFull {
		t.Flags = data[26]
	}
	return t, nil
}

// Append appends the 27 bytes of the option's data.
func (t Traceparent) Append(b []byte) []byte {
	b = append(b, 0, 0)
	b = append(b, t.TraceID[:]...)
	b = append(b, t.SpanID[:]...)
	return append(b, t.Flags)
}

// String returns the data as the traceparent of W3C Trace Context shows it:
// version, trace id, span id and flags.
func (t Traceparent) String() string {
	return fmt.Sprintf("00-%s-%s-%02x", t.TraceID, t.SpanID, t.Flags)
}

// FindTraceparent looks for the option in a message. found is false when there
// is none; the error says what is wrong with one that must be ignored, a second
// one included.
func FindTraceparent(m *dns.Msg, code uint16) (t Traceparent, found bool, err error) {
	opt := m.IsEdns0()
	if opt == nil {
		return t, false, nil
	}
	for _, o := range opt.Option {
		local, ok := o.(*dns.EDNS0_LOCAL)
		if !ok || local.Code != code {
			continue
		}
		if found {
			return Traceparent{}, true, fmt.Errorf("TRACEPARENT: more than one option")
		}
		found = true
		if t, err = ParseTraceparent(local.Data); err != nil {
			return Traceparent{}, true, err
		}
	}
	return t, found, nil
}
