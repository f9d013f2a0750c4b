package exchange

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// headerLen is the length of a DNS header (RFC 1035, section 4.1.1).
const headerLen = 12

// Bits of the second word of the header (RFC 1035, section 4.1.1; RFC 4035,
// section 3).
const (
	bitQR = 1 << 15
	bitAA = 1 << 10
	bitTC = 1 << 9
	bitRD = 1 << 8
	bitRA = 1 << 7
	bitAD = 1 << 5
	bitCD = 1 << 4
)

// opcodeQuery is the opcode of a lookup; in other messages the sections mean
// something else.
const opcodeQuery = 0

// opcodeUpdate is the highest opcode in use over TCP (RFC 2136, section 1.3).
const opcodeUpdate = 5

// errNotDNS says that a payload is no DNS message with one question.
var errNotDNS = errors.New("not a DNS message with one question")

// header is what pairs a packet with its exchange: read from every packet, so
// nothing in it is allocated.
type header struct {
	id       uint16
	flags    uint16
	question []byte    // QNAME, QTYPE and QCLASS as they are in the message
	counts   [3]uint16 // records in the answer, authority and additional sections
}

func (h *header) response() bool { return h.flags&bitQR != 0 }

func (h *header) opcode() int { return int(h.flags>>11) & 0xf }

// parseHeader reads the header and finds the question. b may be truncated after the
// question. The result refers to b. likely is the question of another message, which this
// one may repeat.
func parseHeader(b, likely []byte) (header, error) {
	if len(b) < headerLen {
		return header{}, errNotDNS
	}
	h := header{id: binary.BigEndian.Uint16(b), flags: binary.BigEndian.Uint16(b[2:])}
	// Anything but one question is refused by servers (RFC 9619).
	if binary.BigEndian.Uint16(b[4:]) != 1 {
		return header{}, errNotDNS
	}
	for i := range h.counts {
		h.counts[i] = binary.BigEndian.Uint16(b[6+2*i:])
	}
	if n := headerLen + len(likely); len(likely) > 0 && n <= len(b) && bytes.Equal(b[headerLen:n], likely) {
		h.question = b[headerLen:n]
		return h, nil
	}
	end := headerLen
	for {
		if end >= len(b) || end-headerLen > 254 {
			return header{}, errNotDNS
		}
		n := int(b[end])
		if n > 63 { // a pointer; the first name has nothing to point to
			return header{}, errNotDNS
		}
		end += 1 + n
		if n == 0 {
			break
		}
	}
	end += 4
	if end > len(b) {
		return header{}, errNotDNS
	}
	h.question = b[headerLen:end]
	return h, nil
}

// parseBare reads the header of a response that does not repeat its question:
// some servers answer so what they cannot read.
func parseBare(b []byte) (header, bool) {
	if len(b) < headerLen || binary.BigEndian.Uint16(b[4:]) != 0 {
		return header{}, false
	}
	h := header{id: binary.BigEndian.Uint16(b), flags: binary.BigEndian.Uint16(b[2:])}
	for i := range h.counts {
		h.counts[i] = binary.BigEndian.Uint16(b[6+2*i:])
	}
	return h, h.response()
}

// question is the question of an exchange in the forms that records need.
type question struct {
	name          []byte // wire format
	qtype, qclass uint16
}

func splitQuestion(q []byte) question {
	n := len(q) - 4
	return question{name: q[:n], qtype: binary.BigEndian.Uint16(q[n:]), qclass: binary.BigEndian.Uint16(q[n+2:])}
}

// hash returns a 64-bit hash (FNV-1a) of a question, whatever the case of its
// name: servers and clients may mix it (draft-vixie-dnsext-dns0x20).
func hash(question []byte) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, c := range question[:len(question)-4] {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * prime
	}
	for _, c := range question[len(question)-4:] {
		h = (h ^ uint64(c)) * prime
	}
	return h
}
