package dnstrace

import (
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
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
