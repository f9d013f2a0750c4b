package dnstrace

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
)

// Metadata implements metadata.Provider. It runs before the first plugin, so
// that plugins before dnstrace, such as log, can use the values too.
func (d *Dnstrace) Metadata(ctx context.Context, state request.Request) context.Context {
	ident := nestedIn(ctx)
	if ident == nil {
		if len(state.Req.Question) == 0 {
			return ctx
		}
		ident = identityOf(ctx)
		// The second case is a server block whose view did not match: what it
		// accepts is not what we do.
		if ident == nil || ident.req == state.Req && ident.plugin != d {
			ident = new(identity)
			ident.init(d, state.W, state.Req)
			ctx = context.WithValue(ctx, identityKey{}, ident)
			if !identities.Load() {
				identities.Store(true)
			}
		}
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

// nestedIn returns the identity of the query that the one of ctx is a part of,
// or nil: a nested lookup has the ids of its query.
func nestedIn(ctx context.Context) *identity {
	s := spanOf(ctx)
	if s == nil {
		return nil
	}
	q, ok := s.lock()
	if !ok {
		return nil
	}
	defer q.mu.Unlock()
	q.kept = true
	if !q.front.shared {
		q.front.shared = true // by the query's goroutine: nobody else knows of it yet
	}
	return q.ident
}
