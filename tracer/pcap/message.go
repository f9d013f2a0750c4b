package pcap

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// rebuild reconstructs the message of an exchange from its record: id, question, flags,
// code, and of the answers the addresses and aliases. It is nil where the record has too
// little.
func rebuild(ex *trace.Exchange, response bool) []byte {
	qtype, ok := number(dns.StringToType, ex.QType, "TYPE")
	if !ok {
		return nil
	}
	qclass, ok := number(dns.StringToClass, ex.QClass, "CLASS")
	if !ok {
		return nil
	}
	m := &dns.Msg{Compress: true, Question: []dns.Question{{Name: ex.QName, Qtype: qtype, Qclass: qclass}}}
	m.Id, m.Opcode = ex.ID, ex.Opcode
	// What a stub resolver asks for; of a response the record tells.
	m.RecursionDesired = true
	if !response && (ex.DNSSECOK || ex.Protocol == "udp" && ex.BufSize > dns.MinMsgSize) {
		m.SetEdns0(uint16(min(ex.BufSize, dns.MaxMsgSize)), ex.DNSSECOK)
	}
	if response {
		rcode, ok := number(dns.StringToRcode, ex.RCode, "")
		if !ok {
			return nil
		}
		answer(m, ex, int(rcode))
	}
	wire, err := m.Pack()
	if err != nil {
		return nil
	}
	return wire
}

// number reads a name, or a number as records have it where there is no name.
func number[N uint16 | int](names map[string]N, name, prefix string) (uint16, bool) {
	if n, ok := names[name]; ok {
		return uint16(n), true
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(name, prefix), 10, 16)
	return uint16(n), err == nil
}

func answer(m *dns.Msg, ex *trace.Exchange, rcode int) {
	m.Response = true
	m.RecursionDesired = false
	for _, flag := range ex.Flags {
		switch flag {
		case "aa":
			m.Authoritative = true
		case "tc":
			m.Truncated = true
		case "rd":
			m.RecursionDesired = true
		case "ra":
			m.RecursionAvailable = true
		case "ad":
			m.AuthenticatedData = true
		case "cd":
			m.CheckingDisabled = true
		}
	}
	if rcode > 0xf { // the upper bits are in the OPT record
		m.SetEdns0(dns.DefaultMsgSize, ex.DNSSECOK)
	}
	m.Rcode = rcode
	owner := ex.QName
	for _, a := range ex.Answers {
		head := dns.RR_Header{Name: owner, Class: m.Question[0].Qclass, Ttl: a.TTL}
		addr, err := netip.ParseAddr(a.Value)
		switch {
		case a.Type == "CNAME":
			head.Rrtype = dns.TypeCNAME
			m.Answer = append(m.Answer, &dns.CNAME{Hdr: head, Target: a.Value})
			owner = a.Value // whose addresses follow
		case err == nil && addr.Is4():
			head.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: addr.AsSlice()})
		case err == nil:
			head.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: addr.AsSlice()})
		}
	}
}
