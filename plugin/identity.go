package dnstrace

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// identity names a query. What it is computed from is fixed when the query arrives; the ids are computed when
// somebody asks, which is after the answer unless another plugin wants them earlier.
type identity struct {
	plugin  *Dnstrace
	time    time.Time
	client  netip.AddrPort
	proto   string // "udp" or "tcp", as request.Request says it
	id      uint16
	adopted bool // traceID and parentID came with the query
	sampled bool // and whoever sent them records the lookup
	q       dns.Question

	once     sync.Once // computes what follows
	flow     trace.Flow
	traceID  trace.TraceID
	spanID   trace.SpanID
	parentID trace.SpanID
}

func (i *identity) init(d *Dnstrace, w dns.ResponseWriter, r *dns.Msg) {
	i.plugin, i.time, i.id, i.q = d, time.Now(), r.Id, r.Question[0]
	i.client, i.proto = address(w.RemoteAddr())
	if len(d.accept) > 0 && len(r.Extra) > 0 {
		if t, result := d.incoming(i.client.Addr(), r); result == optionAccepted {
			i.adopted, i.traceID, i.parentID = true, t.TraceID, t.SpanID
			i.sampled = t.Flags&trace.FlagSampled != 0
		}
	}
}

// transport returns the IANA number of how the query came.
func (i *identity) transport() uint8 {
	if i.proto == "tcp" {
		return trace.TransportTCP
	}
	return trace.TransportUDP
}

// computed returns i with all ids, which are derived once.
func (i *identity) computed() *identity {
	i.once.Do(i.derive)
	return i
}

func (i *identity) derive() {
	var wire [256]byte
	// The name came off the wire or out of another plugin's Fqdn; one that cannot be packed is no name that
	// anybody else could have seen.
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

// address returns the address and the protocol ("udp", "tcp") of a, as request.Request does: QUIC is udp,
// everything over a connection is tcp.
func address(a net.Addr) (netip.AddrPort, string) {
	var ap netip.AddrPort
	proto := "udp"
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap, proto = a.AddrPort(), "tcp"
	case interface{ Unwrap() net.Addr }:
		if inner := a.Unwrap(); inner != nil {
			return address(inner)
		}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), proto
}

type identityKey struct{}

// identified is what Metadata leaves in the context of a query.
type identified struct {
	*identity
	req    *dns.Msg // as it came
	nested bool     // it is a lookup that another query made
}

// identityOf returns the identity that Metadata left in ctx, and whether it is another query's, which made this
// lookup.
func identityOf(ctx context.Context) (i *identity, nested bool) {
	if left, ok := ctx.Value(identityKey{}).(*identified); ok {
		return left.identity, left.nested
	}
	return nil, false
}

// Metadata implements metadata.Provider. It runs before the first plugin, so that plugins before dnstrace, such
// as log, can use the values too.
func (d *Dnstrace) Metadata(ctx context.Context, state request.Request) context.Context {
	ctx, ident := d.identify(ctx, state)
	if ident == nil {
		return ctx
	}
	metadata.SetValueFunc(ctx, pluginName+"/trace_id", func() string { return ident.computed().traceID.String() })
	metadata.SetValueFunc(ctx, pluginName+"/span_id", func() string { return ident.computed().spanID.String() })
	return ctx
}

// identify returns the identity of a query, and the context in which others find it. A nested lookup has the
// identity of its query.
func (d *Dnstrace) identify(ctx context.Context, state request.Request) (context.Context, *identity) {
	if s := spanOf(ctx); s != nil {
		return ctx, s.q.ident
	}
	if len(state.Req.Question) == 0 {
		return ctx, nil
	}
	left, _ := ctx.Value(identityKey{}).(*identified)
	switch {
	case left == nil, left.req == state.Req && left.plugin != d:
		// The second is a server block whose view did not match: what it accepts is not what we do.
		ident := new(identity)
		ident.init(d, state.W, state.Req)
		left = &identified{ident, state.Req, false}
	case left.req != state.Req:
		// The server asks for metadata once for each lookup, with the message as it came.
		left = &identified{left.identity, state.Req, true}
	default:
		return ctx, left.identity
	}
	return context.WithValue(ctx, identityKey{}, left), left.identity
}
