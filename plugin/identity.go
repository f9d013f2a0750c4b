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

const (
	protoUDP = "udp"
	protoTCP = "tcp"
)

// identity names a query. What it is computed from is fixed when the query
// arrives; the ids are computed when somebody asks, which is after the answer
// unless another plugin wants them earlier.
type identity struct {
	plugin  *Dnstrace
	time    time.Time
	client  netip.AddrPort
	id      uint16
	tcp     bool
	adopted bool // traceID and parentID came with the query
	sampled bool // and whoever sent them records the lookup
	q       dns.Question

	mu       sync.Mutex
	computed bool // what follows
	flow     trace.Flow
	traceID  trace.TraceID
	spanID   trace.SpanID
	parentID trace.SpanID
}

func (i *identity) init(d *Dnstrace, w dns.ResponseWriter, r *dns.Msg) {
	i.plugin = d
	i.time = time.Now()
	client, proto := address(w.RemoteAddr())
	i.client, i.tcp = client, proto == protoTCP
	i.id = r.Id
	i.q = r.Question[0]
	if len(d.accept) > 0 && len(r.Extra) > 0 {
		i.adopt(d, r)
	}
}

// adopt makes the query part of the trace that its TRACEPARENT names, if it
// comes from a client that we accept it from.
func (i *identity) adopt(d *Dnstrace, r *dns.Msg) {
	if t, result := d.incoming(i.client.Addr(), r); result == optionAccepted {
		i.adopted, i.traceID, i.parentID = true, t.TraceID, t.SpanID
		i.sampled = t.Flags&trace.FlagSampled != 0
	}
}

// proto returns how the query came, as request.Request says it.
func (i *identity) proto() string {
	if i.tcp {
		return protoTCP
	}
	return protoUDP
}

// compute derives all ids, once; they are ready when it returns.
func (i *identity) compute() {
	i.mu.Lock()
	if !i.computed {
		i.derive()
		i.computed = true
	}
	i.mu.Unlock()
}

// samplingHash returns the number by which the query is sampled.
func (i *identity) samplingHash() uint32 {
	return trace.SamplingHash(i.transport(), i.id, i.client.Port())
}

// transport returns the IANA number of how the query came.
func (i *identity) transport() uint8 {
	if i.tcp {
		return trace.TransportTCP
	}
	return trace.TransportUDP
}

func (i *identity) derive() {
	var wire [256]byte
	// The name came off the wire or out of another plugin's Fqdn; one that cannot be packed is no
	// name that anybody else could have seen.
	n, err := trace.PackName(i.q.Name, wire[:])
	if err != nil {
		n = 0
	}
	i.flow = trace.NewFlow(i.transport(), i.client, i.id, i.q.Qtype, i.q.Qclass, wire[:n])
	if !i.adopted {
		i.traceID = trace.NewTraceID(i.time, i.flow)
		i.parentID = trace.NewSpanID(i.traceID, trace.SpanID{}, trace.RoleClient, 0)
	}
	i.spanID = trace.NewSpanID(i.traceID, i.parentID, trace.RoleServer, 0)
}

// address returns the address and the protocol ("udp", "tcp") of a, as
// request.Request does: QUIC is udp, everything over a connection is tcp.
func address(a net.Addr) (netip.AddrPort, string) {
	var ap netip.AddrPort
	proto := protoUDP
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap, proto = a.AddrPort(), protoTCP
	case interface{ Unwrap() net.Addr }:
		if inner := a.Unwrap(); inner != nil {
			return address(inner)
		}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), proto
}

// parent returns the span above the query, or nil where its TRACEPARENT came
// without one.
func (i *identity) parent() *trace.SpanID {
	if i.parentID.IsZero() {
		return nil
	}
	return &i.parentID
}

type identityKey struct{}

// identified is what Metadata leaves in the context of a query.
type identified struct {
	*identity
	req    *dns.Msg // as it came
	nested bool     // it is a lookup that another query made
}

// identityOf returns the identity that Metadata left in ctx, and whether it is another query's,
// which made this lookup.
func identityOf(ctx context.Context) (i *identity, nested bool) {
	if left, ok := ctx.Value(identityKey{}).(*identified); ok {
		return left.identity, left.nested
	}
	return nil, false
}
