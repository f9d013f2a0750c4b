package trace

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/miekg/dns"
)

func isOption(code uint16) func(dns.EDNS0) bool {
	return func(o dns.EDNS0) bool { return o.Option() == code }
}

// HasTraceparent reports whether m has an option with this code, in whatever form. A message with more than one OPT
// is malformed, but CoreDNS would send it on all the same.
func HasTraceparent(m *dns.Msg, code uint16) bool {
	for _, rr := range m.Extra {
		if opt, ok := rr.(*dns.OPT); ok && slices.ContainsFunc(opt.Option, isOption(code)) {
			return true
		}
	}
	return false
}

// WithoutTraceparent returns m without the options with this code: m itself where it has none, or is signed, or else
// a copy, because others hold m too.
func WithoutTraceparent(m *dns.Msg, code uint16) *dns.Msg {
	if !HasTraceparent(m, code) || Signed(m) {
		return m
	}
	stripped := *m
	stripped.Extra = slices.Clone(m.Extra)
	for i, rr := range stripped.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			o := *opt
			o.Option = slices.DeleteFunc(slices.Clone(opt.Option), isOption(code))
			stripped.Extra[i] = &o
		}
	}
	return &stripped
}

// WithoutTraceparentInWire is WithoutTraceparent for a message in wire format. What cannot be read stays as it is.
func WithoutTraceparentInWire(wire []byte, code uint16) []byte {
	if !bytes.Contains(wire, binary.BigEndian.AppendUint16(nil, code)) {
		return wire
	}
	m := new(dns.Msg)
	if m.Unpack(wire) != nil {
		return wire
	}
	stripped := WithoutTraceparent(m, code)
	if stripped == m {
		return wire
	}
	stripped.Compress = true // so that it does not grow
	b, err := stripped.Pack()
	if err != nil {
		return wire
	}
	return b
}

// Signed reports whether a signature covers m, with TSIG or SIG(0): every change would break it. It is the last
// record (RFC 8945, section 5.1; RFC 2931, section 3.1).
func Signed(m *dns.Msg) bool {
	if len(m.Extra) == 0 {
		return false
	}
	rrtype := m.Extra[len(m.Extra)-1].Header().Rrtype
	return rrtype == dns.TypeTSIG || rrtype == dns.TypeSIG
}
