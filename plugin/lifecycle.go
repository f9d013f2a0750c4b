package dnstrace

import (
	"context"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// instance is what the server blocks of a Corefile share: the outputs, each once, so that lines stay whole.
type instance struct {
	blocks  []*Dnstrace
	outputs []*output
}

// instanceKey is the key of the instance in the storage of Caddy's.
type instanceKey struct{}

// instanceOf returns the instance that c sets up a server block of.
//
// In a reload, Caddy shuts down the plugins when the servers have stopped. At the end of CoreDNS it does so before,
// and once more for good after health's lameduck: from then on a query ends when its record is written, and servers
// wait for their queries. Of a start that fails it tells nobody.
func instanceOf(c *caddy.Controller) *instance {
	i, ok := c.Get(instanceKey{}).(*instance)
	if !ok {
		i = new(instance)
		c.Set(instanceKey{}, i)
		c.OnStartup(i.start)
		c.OnShutdown(func() error { return i.each((*output).flush) })
		c.OnFinalShutdown(func() error { return i.each((*output).end) })
	}
	return i
}

func (i *instance) start() error {
	for _, d := range i.blocks {
		d.check(plugin.NextOrFailure)
	}
	return nil
}

// output returns the output of c, which it opens for the first server block that names it. Whoever gets it raises its
// limit.
func (i *instance) output(c outputConfig) (*output, error) {
	for _, o := range i.outputs {
		if o.config == c {
			return o, nil
		}
	}
	s, err := openSink(c)
	if err != nil {
		return nil, err
	}
	o := newOutput(c, s, 0)
	i.outputs = append(i.outputs, o)
	return o, nil
}

// each does something with all outputs at once, so that several that are blocked take no longer than one.
func (i *instance) each(do func(*output)) error {
	var wg sync.WaitGroup
	for _, o := range i.outputs {
		wg.Go(func() { do(o) })
	}
	wg.Wait()
	return nil
}

// Records depend on undocumented behaviour of CoreDNS. The log warns of a CoreDNS without it.

// nextOrFailure is plugin.NextOrFailure.
type nextOrFailure func(name string, next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error)

// opensSpans reports whether a handler that is called by next finds a span below the caller's.
func opensSpans(next nextOrFailure) (opened bool) {
	q := &query{ident: new(identity)}
	q.record.init(q)
	above := &span{Span: nothing, q: q, rec: &q.record}
	probe := plugin.HandlerFunc(func(ctx context.Context, _ dns.ResponseWriter, _ *dns.Msg) (int, error) {
		s := spanOf(ctx)
		opened = s != nil && s.parent == above
		return dns.RcodeSuccess, nil
	})
	_, err := next(pluginName, probe, ot.ContextWithSpan(context.Background(), above), nil, new(dns.Msg))
	return opened && err == nil
}

// check warns of what cannot be observed in this CoreDNS.
func (d *Dnstrace) check(next nextOrFailure) {
	if !opensSpans(next) {
		log.Warning("this CoreDNS opens no spans for plugins: records have no hops behind the first plugin that asks upstreams")
	}
}

// checkAttempts warns, once, if forward answered without opening a span for the attempt.
func (d *Dnstrace) checkAttempts(rec *record) {
	if rec.q.answeredBy == forwardPlugin && len(rec.attempts) == 0 && !rec.isRefresh() && !rec.isFull() {
		d.warned.Do(func() {
			log.Warning("this CoreDNS opens no spans for what forward asks: records have no upstream attempts")
		})
	}
}
