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
	req     *dns.Msg
	time    time.Time
	client  netip.AddrPort
	id      uint16
	tcp     bool
	adopted bool // traceID and parentID came with the query
	sampled bool // and whoever sent them records the lookup
	q       dns.Question

	named    sync.Once // flow and traceID
	spanned  sync.Once // the others
	flow     trace.Flow
	traceID  trace.TraceID
	spanID   trace.SpanID
	parentID trace.SpanID
}

func (i *identity) init(d *Dnstrace, w dns.ResponseWriter, r *dns.Msg) {
	i.plugin, i.req = d, r
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
	i.name()
	i.spanned.Do(i.deriveSpans)
}

// name derives flow and trace id alone, which is all that sampling needs.
func (i *identity) name() { i.named.Do(i.deriveName) }

func (i *identity) deriveName() {
	transport := uint8(trace.TransportUDP)
	if i.tcp {
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
	if !i.adopted {
		i.traceID = trace.NewTraceID(i.time, i.flow)
	}
}

func (i *identity) deriveSpans() {
	if !i.adopted {
		i.parentID = trace.NewSpanID(i.traceID, trace.SpanID{}, trace.RoleClient, 0)
	}
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
	proto := protoUDP
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap, proto = a.AddrPort(), protoTCP
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

// identityOf returns the identity that Metadata left in ctx.
func identityOf(ctx context.Context) *identity {
	i, _ := ctx.Value(identityKey{}).(*identity)
	return i
}
