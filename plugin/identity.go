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

// identity identifies a query. Its ids are computed on first use, which is after the answer unless another plugin
// wants them earlier.
type identity struct {
	plugin  *Dnstrace
	time    time.Time
	client  netip.AddrPort
	proto   string // "udp" or "tcp", as request.Request says it
	id      uint16
	adopted bool // traceID and parentID came with the query
	sampled bool // the server that sent them records the lookup
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

// computed returns i with its ids.
func (i *identity) computed() *identity {
	i.once.Do(func() {
		var wire [256]byte
		n, err := trace.PackName(i.q.Name, wire[:])
		if err != nil {
			n = 0 // such a name was never on the wire
		}
		i.flow = trace.NewFlow(i.transport(), i.client, i.id, i.q.Qtype, i.q.Qclass, wire[:n])
		if !i.adopted {
			i.traceID = trace.NewTraceID(i.time, i.flow)
			i.parentID = trace.NewSpanID(i.traceID, trace.SpanID{}, trace.RoleClient, 0)
		}
		i.spanID = trace.NewSpanID(i.traceID, i.parentID, trace.RoleServer, 0)
	})
	return i
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
	*identity          // nil: Metadata has not run
	req       *dns.Msg // as it came
	nested    bool     // it is a lookup that another query made
}

func identifiedIn(ctx context.Context) identified {
	i, _ := ctx.Value(identityKey{}).(identified)
	return i
}

// Metadata implements metadata.Provider. It runs before the first plugin, so that plugins before dnstrace, such
// as log, can use the values too. A nested lookup has the identity of its query.
func (d *Dnstrace) Metadata(ctx context.Context, state request.Request) context.Context {
	if len(state.Req.Question) == 0 {
		return ctx
	}
	i := identifiedIn(ctx)
	switch s := spanOf(ctx); {
	case s != nil:
		i.identity = s.q.ident
	case i.identity == nil, i.req == state.Req && i.plugin != d:
		// The second is a server block whose view did not match: what it accepts is not what we do.
		i = identified{identity: new(identity), req: state.Req}
		i.init(d, state.W, state.Req)
	case i.req != state.Req:
		// The server asks for metadata once for each lookup, with the message as it came.
		i.req, i.nested = state.Req, true
	}
	metadata.SetValueFunc(ctx, pluginName+"/trace_id", func() string { return i.computed().traceID.String() })
	metadata.SetValueFunc(ctx, pluginName+"/span_id", func() string { return i.computed().spanID.String() })
	return context.WithValue(ctx, identityKey{}, i)
}
