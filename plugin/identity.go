package dnstrace

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// identity names a query. What it is computed from is fixed when the query
// arrives; the ids are computed when somebody asks, which is the writer's
// goroutine unless another plugin wants them earlier.
type identity struct {
	req    *dns.Msg
	time   time.Time
	client netip.AddrPort
	proto  string
	id     uint16
	q      dns.Question

	once     sync.Once
	flow     trace.Flow
	traceID  trace.TraceID
	spanID   trace.SpanID
	parentID trace.SpanID
}

func (i *identity) init(w dns.ResponseWriter, r *dns.Msg) {
	i.req = r
	i.time = time.Now()
	i.client, i.proto = address(w.RemoteAddr())
	i.id = r.Id
	i.q = r.Question[0]
}

// compute derives the ids, once; the others are ready when it returns.
func (i *identity) compute() { i.once.Do(i.derive) }

func (i *identity) derive() {
	transport := uint8(trace.TransportUDP)
	if i.proto == "tcp" {
		transport = trace.TransportTCP
	}
	var wire [256]byte
	// The name came off the wire or out of another plugin's Fqdn; one that
	// cannot be packed is no name that anybody else could have seen.
	n, err := dns.PackDomainName(i.q.Name, wire[:], 0, nil, false)
	if err != nil {
		n = 0
	}
	i.flow = trace.NewFlow(transport, i.client, i.id, i.q.Qtype, i.q.Qclass, wire[:n])
	i.traceID = trace.NewTraceID(i.time, i.flow)
	i.parentID = trace.NewSpanID(i.traceID, trace.SpanID{}, trace.RoleClient, 0)
	i.spanID = trace.NewSpanID(i.traceID, i.parentID, trace.RoleServer, 0)
}

// address returns the address and the protocol ("udp", "tcp") of a, as
// request.Request does: QUIC is udp, everything over a connection is tcp.
func address(a net.Addr) (netip.AddrPort, string) {
	if wrapped, ok := a.(interface{ Unwrap() net.Addr }); ok {
		if inner := wrapped.Unwrap(); inner != nil {
			a = inner
		}
	}
	var ap netip.AddrPort
	proto := "udp"
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap, proto = a.AddrPort(), "tcp"
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), proto
}

type identityKey struct{}

// identityOf returns the identity that Metadata left in ctx.
func identityOf(ctx context.Context) *identity {
	i, _ := ctx.Value(identityKey{}).(*identity)
	return i
}
