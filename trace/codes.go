package trace

import (
	"strconv"

	"github.com/miekg/dns"
)

// RCodeName returns the name of a message's response code, its upper bits from OPT
// included, or its number. 16 is BADVERS there (RFC 6891, section 9); BADSIG has the
// same number in a TSIG record alone (RFC 8945, section 3).
func RCodeName(code int) string {
	if code == dns.RcodeBadVers {
		return "BADVERS"
	}
	if name := dns.RcodeToString[code]; name != "" {
		return name
	}
	return strconv.Itoa(code)
}

// Operation returns the name of what a message with this opcode asks for, where that is no
// lookup: NOTIFY (RFC 1996), UPDATE (RFC 2136), or what has no name here. It is empty for
// a query.
func (d *DNS) Operation() string {
	if d.Opcode == dns.OpcodeQuery {
		return ""
	}
	if name := dns.OpcodeToString[d.Opcode]; name != "" {
		return name
	}
	return "opcode " + strconv.Itoa(d.Opcode)
}
