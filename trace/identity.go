package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"
)

// IANA protocol numbers of the transports that carry DNS.
const (
	TransportTCP = 6
	TransportUDP = 17
)

// StepSeconds is the resolution of the time in a trace id. A power of two close
// to the longest life of a lookup: short enough that a port and DNS ID that are
// used again get another id, long enough that the two ends of one lookup rarely
// fall on different sides of a step.
const StepSeconds = 256

// Flow names a question in flight: the same for every observer of the packet
// between the client and its server, and again for the same question from the
// same port with the same ID at another time.
type Flow [12]byte

// TraceID names a lookup.
type TraceID [16]byte

// SpanID names one part of a lookup.
type SpanID [8]byte

// NewFlow computes the flow of a query. client is the address that the server
// sees (after source NAT), qname the name in uncompressed wire format in any
// case (RFC 1035, section 3.1).
func NewFlow(transport uint8, client netip.AddrPort, id, qtype, qclass uint16, qname []byte) Flow {
	// 25 bytes of numbers and at most 255 of name (RFC 1035, section 2.3.4);
	// a longer name cannot come from a parser and still must not panic.
	var buf [25 + 255]byte
	b := append(buf[:0], transport)
	addr := client.Addr().As16()
	b = append(b, addr[:]...)
	b = binary.BigEndian.AppendUint16(b, client.Port())
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = binary.BigEndian.AppendUint16(b, qclass)
	for _, c := range qname {
		// Length octets are at most 63 and so never in 'A'..'Z' (65..90).
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	sum := sha256.Sum256(b)
	return Flow(sum[:12])
}

// NewTraceID computes the trace id of a lookup whose query was seen at t.
func NewTraceID(t time.Time, f Flow) TraceID {
	var id TraceID
	// 32 bits by contract: they wrap in 2106.
	binary.BigEndian.PutUint32(id[:4], uint32(t.Unix())&^(StepSeconds-1))
	copy(id[4:], f[:])
	return id
}

// Flow returns the part of a derived trace id that does not depend on time.
func (id TraceID) Flow() Flow { return Flow(id[4:]) }

// SameLookup tells whether two ids name one lookup: they are equal, or differ
// by one step of time because the observers saw it on both sides of the step.
func SameLookup(a, b TraceID) bool {
	if a.Flow() != b.Flow() {
		return false
	}
	ta, tb := binary.BigEndian.Uint32(a[:4]), binary.BigEndian.Uint32(b[:4])
	return ta == tb || ta-tb == StepSeconds || tb-ta == StepSeconds
}

// Roles of the spans of a lookup, for [NewSpanID].
const (
	RoleClient  = "client"  // the exchange as the client's node saw it
	RoleServer  = "server"  // the query record of a server
	RoleAttempt = "attempt" // one upstream attempt; its number is the index
)

// NewSpanID derives the id of a span from what every observer of it knows: the
// trace, the span above it (zero at the top), its role and its number among
// siblings. The time in a derived trace id is left out, so that observers on
// both sides of a step still agree. The hash is XXH64 (seed 0): a span id only has
// to differ from the others of its trace, and servers derive two for each query,
// for which SHA-256 would take a fortieth of a cached answer's time.
func NewSpanID(id TraceID, parent SpanID, role string, index int) SpanID {
	var buf [64]byte
	b := append(buf[:0], id[4:]...)
	b = append(b, parent[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(index))
	b = append(b, role...)
	var span SpanID
	binary.BigEndian.PutUint64(span[:], xxhash.Sum64(b))
	return span
}

// IsZero reports whether the id is unset.
func (id TraceID) IsZero() bool { return id == TraceID{} }

// IsZero reports whether the id is unset.
func (id SpanID) IsZero() bool { return id == SpanID{} }

// String returns 32 hexadecimal digits.
func (id TraceID) String() string { return hex.EncodeToString(id[:]) }

// String returns 24 hexadecimal digits.
func (f Flow) String() string { return hex.EncodeToString(f[:]) }

// String returns 16 hexadecimal digits.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// ParseTraceID reads 32 hexadecimal digits.
func ParseTraceID(s string) (TraceID, error) {
	var id TraceID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *TraceID) UnmarshalText(b []byte) error { return unhex(id[:], b) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Flow) UnmarshalText(b []byte) error { return unhex(f[:], b) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *SpanID) UnmarshalText(b []byte) error { return unhex(id[:], b) }

func unhex(dst, src []byte) error {
	if len(src) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("expected %d hexadecimal digits, got %q", hex.EncodedLen(len(dst)), src)
	}
	if _, err := hex.Decode(dst, src); err != nil {
		return fmt.Errorf("expected hexadecimal digits, got %q", src)
	}
	return nil
}
