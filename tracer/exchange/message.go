package exchange

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// headerLen is the length of a DNS header (RFC 1035, section 4.1.1).
const headerLen = 12

// Bits of the second word of the header.
const (
	bitQR = 1 << 15
	bitTC = 1 << 9
)

// errNotDNS says that a payload is no DNS message with one question.
var errNotDNS = errors.New("not a DNS message with one question")

// header is what pairs a packet with its exchange: read from every packet, so
// nothing in it is allocated.
type header struct {
	id       uint16
	flags    uint16
	question []byte // QNAME, QTYPE and QCLASS as they are in the message
	counts   [3]uint16
}

func (h *header) response() bool { return h.flags&bitQR != 0 }

// parseHeader reads the header and finds the question. b may be cut after the
// question. The result refers to b.
func parseHeader(b []byte) (header, error) {
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

// question is the question of an exchange in the forms that records need.
type question struct {
	name          []byte // wire format
	qtype, qclass uint16
}

func splitQuestion(q []byte) question {
	n := len(q) - 4
	return question{name: q[:n], qtype: binary.BigEndian.Uint16(q[n:]), qclass: binary.BigEndian.Uint16(q[n+2:])}
}

// presentation returns the name as DNS tools write it (RFC 1035, section 5.1),
// in lower case.
func (q question) presentation() (string, error) {
	name, _, err := dns.UnpackDomainName(q.name, 0)
	if err != nil {
		return "", err
	}
	return dns.CanonicalName(name), nil
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

// edns is what a query says in its OPT record (RFC 6891).
type edns struct {
	bufSize     int
	do          bool
	rcodeHigh   int
	traceparent string
}

// parseEDNS looks for the OPT record. A message that is cut before it, or is
// malformed behind the question, has none.
func parseEDNS(b []byte, h header) (edns, bool) {
	off := headerLen + len(h.question)
	records := int(h.counts[0]) + int(h.counts[1]) + int(h.counts[2])
	for range records {
		owner := off
		off = skipName(b, off)
		if off < 0 || off+10 > len(b) {
			return edns{}, false
		}
		rtype := binary.BigEndian.Uint16(b[off:])
		rdlen := int(binary.BigEndian.Uint16(b[off+8:]))
		if rtype == dns.TypeOPT && b[owner] == 0 {
			e := edns{
				bufSize:   int(binary.BigEndian.Uint16(b[off+2:])),
				rcodeHigh: int(b[off+4]),
				do:        b[off+6]&0x80 != 0,
			}
			if off+10+rdlen <= len(b) {
				e.traceparent = findTraceparent(b[off+10 : off+10+rdlen])
			}
			return e, true
		}
		off += 10 + rdlen
	}
	return edns{}, false
}

// skipName returns the offset behind the name at off, or -1.
func skipName(b []byte, off int) int {
	for off < len(b) {
		n := int(b[off])
		switch {
		case n == 0:
			return off + 1
		case n >= 0xc0:
			return off + 2
		case n > 63:
			return -1
		}
		off += 1 + n
	}
	return -1
}

// findTraceparent reads the options of an OPT record. More than one TRACEPARENT
// is as bad as a malformed one.
func findTraceparent(options []byte) string {
	found := ""
	for len(options) >= 4 {
		code := binary.BigEndian.Uint16(options)
		n := int(binary.BigEndian.Uint16(options[2:]))
		if 4+n > len(options) {
			break
		}
		if code == trace.DefaultOptionCode {
			t, err := trace.ParseTraceparent(options[4 : 4+n])
			if err != nil || found != "" {
				return ""
			}
			found = t.String()
		}
		options = options[4+n:]
	}
	return found
}
