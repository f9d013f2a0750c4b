package lab

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Behaviour says how a Server treats queries. The zero value answers A, AAAA
// and TXT with what AddrA, AddrAAAA and the name itself give, and other types
// with no data.
type Behaviour struct {
	// Type and Network restrict all that follows to queries of that type, or over udp
	// or tcp; the zero values mean all. Others are treated as if it were not there.
	Type    uint16
	Network string

	// Silent takes the query, logs it and never answers.
	Silent bool
	// Delay is how long the answer is held back.
	Delay time.Duration
	// Rcode is the answer's code, for example dns.RcodeNameError; anything but
	// success comes without records, NXDOMAIN with the SOA that caches want.
	Rcode int
	// Empty answers success without records: no data of that type.
	Empty bool
	// Truncated answers over UDP with TC and no records.
	Truncated bool
	// Slip is response rate limiting: over UDP, of the queries for a name only every
	// Slip-th is answered, with TC and no records. 0 and 1 mean none.
	Slip int
	// Limit is how many queries it treats at once; others are refused. 0 means any number.
	Limit int
	// Records is how many A or AAAA records a name has; 0 means one. Over UDP the answer
	// has as many as the client can take, with TC if that is not all.
	Records int
	// From is where answers over UDP come from; the zero value means where the query came
	// to. The address is one of the server's host.
	From netip.AddrPort
	// Change changes the answer before it is packed, for example to an error that only some
	// queries meet.
	Change func(query, answer *dns.Msg)
	// Mangle changes the answer on its way out, for example [Malformed].
	Mangle func(wire []byte) []byte
	// Size pads the answer to at least this many bytes on the wire, with no
	// regard to what the client advertised.
	Size int
	// TTL of the records in seconds; 0 means 60.
	TTL uint32
}

// AddrA is the IPv4 address that a Server gives for a name: 28 bits of a hash,
// in 240.0.0.0/4, which no network routes. Among a thousand names two share an
// address with a probability of 0.2 %.
func AddrA(name string) netip.Addr {
	sum := nameHash(name)
	return netip.AddrFrom4([4]byte{0xf0 | sum[0]&0x0f, sum[1], sum[2], sum[3]})
}

// AddrAAAA is the IPv6 address that a Server gives for a name: 96 bits of a
// hash, in the documentation prefix 2001:db8::/32. It is unique in practice.
func AddrAAAA(name string) netip.Addr {
	addr := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	sum := nameHash(name)
	copy(addr[4:], sum[:12])
	return netip.AddrFrom16(addr)
}

func nameHash(name string) []byte {
	h := fnv.New128a()
	h.Write([]byte(dns.CanonicalName(name)))
	return h.Sum(nil)
}

// reply makes the answer to a query, to be sent over network.
func (b Behaviour) reply(query *dns.Msg, network string) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, b.Rcode)
	m.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, opt.Do())
	}
	q := query.Question[0]
	ttl := b.TTL
	if ttl == 0 {
		ttl = 60
	}
	switch {
	case b.Rcode == dns.RcodeNameError:
		m.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: parent(q.Name), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  "ns.lab.", Mbox: "hostmaster.lab.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
		}}
	case b.Rcode != dns.RcodeSuccess, b.Empty:
	case (b.Truncated || b.Slip > 1) && network == "udp":
		m.Truncated = true
	default:
		m.Answer = b.answers(q, ttl)
		if network == "udp" && b.Records > 0 {
			m.Truncate(takes(query))
		}
	}
	if missing := b.Size - m.Len(); missing > 0 {
		m.Extra = append(m.Extra, padding(q.Name, missing))
	}
	if b.Change != nil {
		b.Change(query, m)
	}
	return m
}

// takes is how many bytes over UDP a query's client can take.
func takes(query *dns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	return dns.MinMsgSize
}

// answers are the records that a name has. Of many addresses the first is the name's
// own, and the others are those of names below it.
func (b Behaviour) answers(q dns.Question, ttl uint32) []dns.RR {
	all := answers(q, q.Name, ttl)
	for i := 1; i < b.Records; i++ {
		all = append(all, answers(q, fmt.Sprintf("%d.%s", i, q.Name), ttl)...)
	}
	return all
}

// answers is the record of q's type with the address of a name.
func answers(q dns.Question, name string, ttl uint32) []dns.RR {
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	switch q.Qtype {
	case dns.TypeA:
		return []dns.RR{&dns.A{Hdr: hdr, A: AddrA(name).AsSlice()}}
	case dns.TypeAAAA:
		return []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: AddrAAAA(name).AsSlice()}}
	case dns.TypeTXT:
		return []dns.RR{&dns.TXT{Hdr: hdr, Txt: []string{dns.CanonicalName(q.Name)}}}
	}
	return nil
}

// padding is a TXT record of at least size bytes on the wire.
func padding(name string, size int) dns.RR {
	rr := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}}
	for ; size > 0; size -= 256 {
		rr.Txt = append(rr.Txt, strings.Repeat("x", 255))
	}
	return rr
}

// parent is the name above a name; the root's is the root.
func parent(name string) string {
	if next, end := dns.NextLabel(name, 0); !end {
		return name[next:]
	}
	return "."
}
