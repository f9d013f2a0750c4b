package exchange

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// Clocks of one node's kernel and of a process on it agree to this about one moment,
// scheduling between the two included.
const clocks = 50 * time.Millisecond

// UnderWay tells whether the exchange is still open whose query a server recorded at a
// time: it is passed on when it is over.
func (t *Table) UnderWay(q *trace.Query) bool { return t.recorded(q) != nil }

// recorded returns the open exchange whose query a server recorded; nil if there is none.
func (t *Table) recorded(q *trace.Query) *open {
	question, ok := hashOf(q.QName, q.QType, q.QClass)
	if !ok {
		return nil
	}
	k := key{client: netip.AddrPortFrom(q.ClientIP, q.ClientPort), question: question, id: q.ID, protocol: transport(q.Protocol)}
	s := t.at(k)
	for i := range s.len() {
		ex := s.at(i)
		last := ex.wall.Add(time.Duration(ex.lastQuery - ex.first))
		if ex.news() && q.Time.Sub(ex.wall) >= -clocks && q.Time.Sub(last) <= t.cfg.Timeout {
			return ex
		}
	}
	return nil
}

// Server returns the process, and the cgroup, that read the query which a server recorded,
// while its exchange is open; zero values where packets did not show them.
func (t *Table) Server(q *trace.Query) (pid int, cgroup string) {
	if ex := t.recorded(q); ex != nil {
		return int(ex.serverProcess.pid), ex.serverProcess.cgroup
	}
	return 0, ""
}

// Rejecting tells whether an exchange is still open that was begun between two times,
// asks a server that question, and got no more than responses that its client could
// not take. Its client may know already that it is over.
func (t *Table) Rejecting(server netip.AddrPort, qname, qtype string, from, until time.Time) bool {
	if len(t.refused) == 0 {
		return false
	}
	question, ok := hashOf(qname, qtype, "IN")
	if !ok {
		return false
	}
	for ex := range t.refused {
		if ex.key.question == question && ex.goesTo(server) && ex.news() && !ex.wall.Before(from) && !ex.wall.After(until) {
			return true
		}
	}
	return false
}

// maxAlike bounds how many exchanges of one question are looked at for one.
const maxAlike = 64

// Asking tells whether a query for that question is open that was sent from a place
// between two times, by that process; pid 0: any.
func (t *Table) Asking(place trace.Place, pid int, qname, qtype string, from, until time.Time) bool {
	if !t.places.does(place.NetNS, asks) || !t.age.begunBy(until) {
		return false // most servers ask nobody
	}
	question, ok := hashOf(qname, qtype, "IN")
	if !ok {
		return false
	}
	for ex := range t.alike.Of(question, maxAlike) {
		netns, sent := ex.clientNetNS()
		if sent && netns == place.NetNS && (pid == 0 || ex.client.pid == 0 || int(ex.client.pid) == pid) &&
			ex.news() && !ex.wall.Before(from) && !ex.wall.After(until) {
			return true
		}
	}
	return false
}

func transport(protocol string) uint8 {
	if protocol == "tcp" {
		return trace.TransportTCP
	}
	return trace.TransportUDP
}

// hashOf returns the hash of a question that is written as in records.
func hashOf(qname, qtype, qclass string) (uint64, bool) {
	var question [maxName + 4]byte
	n, err := trace.PackName(qname, question[:maxName])
	t, known := number(dns.StringToType, "TYPE", qtype)
	c, ok := number(dns.StringToClass, "CLASS", qclass)
	if err != nil || !known || !ok {
		return 0, false
	}
	question[n], question[n+1], question[n+2], question[n+3] = byte(t>>8), byte(t), byte(c>>8), byte(c)
	return hash(question[:n+4]), true
}

// number returns the number of a type or class, which has a name or is written as in
// RFC 3597, section 5.
func number(names map[string]uint16, prefix, name string) (uint16, bool) {
	if n, ok := names[name]; ok {
		return n, true
	}
	digits, ok := strings.CutPrefix(name, prefix)
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), ok && err == nil
}
