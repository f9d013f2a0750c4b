package dnstrace

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
)

// Metadata implements metadata.Provider. It runs before the first plugin, so
// that plugins before dnstrace, such as log, can use the values too.
func (d *Dnstrace) Metadata(ctx context.Context, state request.Request) context.Context {
	ctx, ident := d.identify(ctx, state)
	if ident == nil {
		return ctx
	}
	metadata.SetValueFunc(ctx, pluginName+"/trace_id", func() string {
		ident.compute()
		return ident.traceID.String()
	})
	metadata.SetValueFunc(ctx, pluginName+"/span_id", func() string {
		ident.compute()
		return ident.spanID.String()
	})
	return ctx
}

// identify returns the identity of a query, and the context in which others find it. A nested
// lookup has the identity of its query.
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
