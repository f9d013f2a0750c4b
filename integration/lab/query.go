package lab

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// defaultTimeout is what a resolver commonly waits.
const defaultTimeout = 5 * time.Second

// ErrGaveUp is the error of a lookup whose client closed its socket early, as
// Query.GiveUpAfter or ClosedClientPort asked for.
var ErrGaveUp = errors.New("the client closed its socket before an answer")

// Query is one lookup to make; only Name (or Message) is needed.
type Query struct {
	Name string // with or without the final dot
	Type uint16 // default A
	ID   uint16 // 0: drawn at random
	// Message is sent as it is, with the ID above, in place of Name and Type.
	Message *dns.Msg

	// The fields below are those of the socket; where queries share a socket,
	// the first query's hold for all.

	Network string         // udp (default) or tcp
	Server  netip.AddrPort // default ServiceV4
	// Unconnected sends from a UDP socket that is not connected to the server, as musl's
	// resolver does. It takes responses from the server's address only, and learns of no
	// ICMP error.
	Unconnected bool
	// LocalPort is the port to ask from; 0 lets the kernel choose.
	LocalPort uint16
	// Timeout is the time from sending to giving up; default 5 s.
	Timeout time.Duration
	// RetransmitAfter sends the query again, with the same ID from the same
	// port, each time this long has passed without an answer (UDP only).
	RetransmitAfter time.Duration
	// GiveUpAfter closes the socket this long after the last query was sent,
	// without reading an answer that comes later; a nanosecond closes it at
	// once. 0 means never.
	GiveUpAfter time.Duration
}

// Result is what became of a Query.
type Result struct {
	Name    string // lower case, with the final dot
	Type    uint16
	ID      uint16
	Network string
	Local   netip.AddrPort // the client's address, as the client sees it
	Server  netip.AddrPort // as the client addressed it
	Sent    time.Time      // just before the query was first written
	// Latency is the time from Sent to the answer, or to the error.
	Latency       time.Duration
	Transmissions int      // how often it was sent
	Answer        *dns.Msg // nil without an answer
	// Err is nil if an answer came, whatever its code. Otherwise errors.Is
	// finds in it os.ErrDeadlineExceeded, ErrGaveUp, or what the kernel said:
	// syscall.ECONNREFUSED where nobody listens, syscall.EPERM where the
	// client's own firewall drops a UDP query.
	Err error
}

// Rcode is the answer's code, or -1 without an answer.
func (r Result) Rcode() int {
	if r.Answer == nil {
		return -1
	}
	return r.Answer.Rcode
}

// withDefaults fills in what was left open.
func (q Query) withDefaults() Query {
	if q.Type == 0 {
		q.Type = dns.TypeA
	}
	if q.ID == 0 {
		q.ID = uint16(1 + rand.IntN(1<<16-1))
	}
	if q.Network == "" {
		q.Network = "udp"
	}
	if !q.Server.IsValid() {
		q.Server = ServiceV4
	}
	if q.Timeout == 0 {
		q.Timeout = defaultTimeout
	}
	return q
}

// message is the query in Go's terms.
func (q Query) message() *dns.Msg {
	if q.Message == nil {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(q.Name), q.Type)
		m.Id = q.ID
		return m
	}
	m := q.Message.Copy()
	m.Id = q.ID
	return m
}
