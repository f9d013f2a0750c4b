package exchange

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// maxAnswers bounds the answers of a record: a response that was crafted to be
// long must not make its record much longer.
const maxAnswers = 32

// sections is what is read of a message behind its question.
type sections struct {
	answers []trace.Answer
	minTTL  uint32 // of the answer section
	hasTTL  bool
	edns    edns
	hasEDNS bool
	// rejection says that the message has fewer records than it claims: it ends before, or
	// has a malformed name.
	rejection rejection
}

// edns is an OPT record (RFC 6891).
type edns struct {
	bufSize     int
	do          bool
	rcodeHigh   int
	traceparent string
	extended    *trace.ExtendedError
}

// parseSections reads the records of a message as far as it can: a message may be truncated
// anywhere, or be malformed behind the question.
func parseSections(b []byte, h header) sections {
	var s sections
	off := headerLen + len(h.question)
	answers := int(h.counts[0])
	records := answers + int(h.counts[1]) + int(h.counts[2])
	for i := range records {
		owner := off
		off = skipName(b, off)
		if off < 0 || off+10 > len(b) {
			s.rejection = incomplete
			if off < 0 && badLabel(b, owner) {
				s.rejection = malformed
			}
			return s
		}
		rtype, ttl := binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint32(b[off+4:])
		data := off + 10
		end := data + int(binary.BigEndian.Uint16(b[off+8:]))
		switch {
		case i < answers && h.response() && h.opcode() == opcodeQuery:
			s.answer(b, rtype, ttl, data, end)
		case rtype == dns.TypeOPT && b[owner] == 0 && !s.hasEDNS:
			s.edns, s.hasEDNS = parseOPT(b, off, data, min(end, len(b))), true
		}
		if off = end; end > len(b) {
			s.rejection = incomplete
		}
	}
	return s
}

// answer notes a record of the answer section, whose data is b[data:end].
func (s *sections) answer(b []byte, rtype uint16, ttl uint32, data, end int) {
	if ttl > 1<<31-1 {
		ttl = 0 // RFC 2181, section 8
	}
	if !s.hasTTL || ttl < s.minTTL {
		s.minTTL, s.hasTTL = ttl, true
	}
	if end > len(b) || len(s.answers) >= maxAnswers {
		return
	}
	value := ""
	switch {
	case rtype == dns.TypeA && end-data == 4, rtype == dns.TypeAAAA && end-data == 16:
		addr, _ := netip.AddrFromSlice(b[data:end])
		value = addr.String()
	case rtype == dns.TypeCNAME:
		name, next, err := dns.UnpackDomainName(b[:end], data)
		if err != nil || next != end {
			return
		}
		value = name
	default:
		return
	}
	s.answers = append(s.answers, trace.Answer{Type: dns.TypeToString[rtype], Value: value, TTL: ttl})
}

// parseOPT reads an OPT record: its class, TTL and options. head is the offset
// behind its name.
func parseOPT(b []byte, head, data, end int) edns {
	e := edns{
		bufSize:   int(binary.BigEndian.Uint16(b[head+2:])),
		rcodeHigh: int(b[head+4]),
		do:        b[head+6]&0x80 != 0,
	}
	e.options(b[data:end])
	return e
}

// options reads the options that matter. More than one TRACEPARENT is as bad as a
// malformed one; of several extended errors the first counts.
func (e *edns) options(options []byte) {
	traceparents := 0
	for len(options) >= 4 {
		code := binary.BigEndian.Uint16(options)
		end := 4 + int(binary.BigEndian.Uint16(options[2:]))
		if end > len(options) {
			break
		}
		data := options[4:end]
		switch code {
		case trace.DefaultOptionCode:
			traceparents++
			if t, err := trace.ParseTraceparent(data); err == nil {
				e.traceparent = t.String()
			}
		case dns.EDNS0EDE:
			if e.extended == nil && len(data) >= 2 {
				e.extended = extendedError(data)
			}
		}
		options = options[end:]
	}
	if traceparents > 1 {
		e.traceparent = ""
	}
}

// extendedError reads an EDE option (RFC 8914, section 2): a code and a text,
// which may end with a zero byte.
func extendedError(data []byte) *trace.ExtendedError {
	code := binary.BigEndian.Uint16(data)
	text := strings.ToValidUTF8(strings.TrimRight(string(data[2:]), "\x00"), "\ufffd")
	return &trace.ExtendedError{Code: code, Name: dns.ExtendedErrorCodeToString[code], Text: text}
}

// flagNames are the flags of a response, in the order in which DNS tools print
// them.
var flagNames = []struct {
	bit  uint16
	name string
}{{bitAA, "aa"}, {bitTC, "tc"}, {bitRD, "rd"}, {bitRA, "ra"}, {bitAD, "ad"}, {bitCD, "cd"}}

// setFlags returns the names of the flags that are set. Each set is made once; it
// must not be changed.
func setFlags(flags uint16) []string { return flagSets[flags>>4&(1<<7-1)] }

var flagSets = func() (sets [1 << 7][]string) {
	for bits := range sets {
		set := []string{}
		for _, f := range flagNames {
			if uint16(bits)<<4&f.bit != 0 {
				set = append(set, f.name)
			}
		}
		sets[bits] = slices.Clip(set)
	}
	return sets
}()

// badLabel tells whether the name at off has a label of a type that there is not (RFC
// 6891, section 4.2).
func badLabel(b []byte, off int) bool {
	for off < len(b) && b[off] <= 63 && b[off] > 0 {
		off += 1 + int(b[off])
	}
	return off < len(b) && b[off] > 63 && b[off] < 0xc0
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
