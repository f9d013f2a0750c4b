package dnstrace

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	ot "github.com/opentracing/opentracing-go"
)

// Metadata implements metadata.Provider. It runs before the first plugin, so
// that plugins before dnstrace, such as log, can use the values too.
func (d *Dnstrace) Metadata(ctx context.Context, state request.Request) context.Context {
	var ident *identity
	if s, ok := ot.SpanFromContext(ctx).(*span); ok {
		ident = s.rec.ident // a nested lookup has the id of its query
	} else if ident = identityOf(ctx); ident == nil || ident.req == state.Req && ident.plugin != d {
		// The second case is a server block whose view did not match: what it
		// accepts is not what we do.
		if len(state.Req.Question) == 0 {
			return ctx
		}
		ident = new(identity)
		ident.init(d, state.W, state.Req)
		ctx = context.WithValue(ctx, identityKey{}, ident)
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
