package dnstrace

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// assignedCodes are the EDNS option codes that IANA has assigned or reserved:
// "DNS EDNS0 Option Codes (OPT)" of
// https://www.iana.org/assignments/dns-parameters, as of 2026. TRACEPARENT under
// one of them would be read as something else by whoever implements that.
var assignedCodes = map[uint16]string{
	1: "LLQ (RFC 8764)", 2: "Update Lease (RFC 9664)", 3: "NSID (RFC 5001)",
	4: "a reserved use (draft-cheshire-edns0-owner-option)",
	5: "DAU (RFC 6975)", 6: "DHU (RFC 6975)", 7: "N3U (RFC 6975)",
	8: "edns-client-subnet (RFC 7871)", 9: "EDNS EXPIRE (RFC 7314)", 10: "COOKIE (RFC 7873)",
	11: "edns-tcp-keepalive (RFC 7828)", 12: "Padding (RFC 7830)", 13: "CHAIN (RFC 7901)",
	14: "edns-key-tag (RFC 8145)", 15: "Extended DNS Error (RFC 8914)",
	16: "EDNS-Client-Tag (draft-bellis-dnsop-edns-tags)", 17: "EDNS-Server-Tag (draft-bellis-dnsop-edns-tags)",
	18: "Report-Channel (RFC 9567)", 19: "ZONEVERSION (RFC 9660)",
	20: "MQTYPE-Query (RFC 10029)", 21: "MQTYPE-Response (RFC 10029)",
	22: "EDE-EXTRA-TEXT-LANGUAGE (draft-muks-dns-filtering)", 23: "FILTERING-CONTACT (draft-muks-dns-filtering)",
	24: "FILTERING-ORGANIZATION (draft-muks-dns-filtering)", 25: "FILTERING-DB (draft-muks-dns-filtering)",
	26:    "Structured DNS Error (draft-ietf-dnsop-structured-dns-error)",
	20292: "Umbrella Ident (Cisco)", 26946: "DeviceID (Cisco)",
}

// maxOptionCode is the last code for local use; the one after it is reserved (RFC
// 6891, section 9).
const maxOptionCode = 65534

func (d *Dnstrace) parseOptionCode(c *caddy.Controller, args []string) error {
	switch {
	case d.optionCode != 0:
		return c.Errf("option-code is already set to %d: expected it once", d.optionCode)
	case len(args) != 1:
		return c.Errf("option-code: expected one EDNS option code, got %d arguments", len(args))
	}
	code, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil || code == 0 || code > maxOptionCode {
		return c.Errf("option-code %s: expected a whole number from 1 to %d", args[0], maxOptionCode)
	}
	if use, ok := assignedCodes[uint16(code)]; ok {
		return c.Errf("option-code %d: IANA assigned it to %s: expected a code that nobody has, such as %d", code, use, trace.DefaultOptionCode)
	}
	d.optionCode = uint16(code)
	return nil
}

// hasOption reports whether m has an option with this code. A message with
// more than one OPT is malformed, but forward would send it on all the same.
func hasOption(m *dns.Msg, code uint16) bool {
	for _, rr := range m.Extra {
		if opt, ok := rr.(*dns.OPT); ok && slices.ContainsFunc(opt.Option, isOption(code)) {
			return true
		}
	}
	return false
}

// withoutOption returns m without the options with this code: m itself where
// it has none, or else a copy, because others hold m too.
func withoutOption(m *dns.Msg, code uint16) *dns.Msg {
	if !hasOption(m, code) {
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

// withoutOptionInWire is withoutOption for a message in wire format. What cannot be
// read, or is signed, stays as it is.
func withoutOptionInWire(wire []byte, code uint16) []byte {
	if !bytes.Contains(wire, binary.BigEndian.AppendUint16(nil, code)) {
		return wire
	}
	m := new(dns.Msg)
	if m.Unpack(wire) != nil || signed(m) || !hasOption(m, code) {
		return wire
	}
	m = withoutOption(m, code)
	m.Compress = true // so that it does not grow
	stripped, err := m.Pack()
	if err != nil {
		return wire
	}
	return stripped
}

// withoutOPT returns m without OPT: m itself where it has none, or else a copy.
func withoutOPT(m *dns.Msg) *dns.Msg {
	if m.IsEdns0() == nil {
		return m
	}
	stripped := *m
	stripped.Extra = slices.DeleteFunc(slices.Clone(m.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	if stripped.Rcode > 0xf {
		// The rest of it was in the OPT (RFC 6891, section 6.1.3).
		stripped.Rcode = dns.RcodeServerFailure
	}
	return &stripped
}

func isOption(code uint16) func(dns.EDNS0) bool {
	return func(o dns.EDNS0) bool { return o.Option() == code }
}

// signed reports whether a signature covers m, with TSIG or SIG(0): every
// change would break it. It is the last record (RFC 8945, section 5.1; RFC 2931,
// section 3.1).
func signed(m *dns.Msg) bool {
	if len(m.Extra) == 0 {
		return false
	}
	rrtype := m.Extra[len(m.Extra)-1].Header().Rrtype
	return rrtype == dns.TypeTSIG || rrtype == dns.TypeSIG
}
