package dnstrace

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
)

// stopTime is longer than CoreDNS waits for queries when it stops its servers, which is 5 s.
const stopTime = 6 * time.Second

// instance is what the server blocks of a Corefile share: the outputs, each once, so that lines stay whole.
type instance struct {
	blocks    []*Dnstrace
	outputs   []*output
	reloading atomic.Bool // to another one, which takes over
}

// instanceKey is the key of the instance in the storage of Caddy's.
type instanceKey struct{}

// instanceOf returns the instance that c sets up a server block of.
//
// In a reload, Caddy shuts down the plugins when the servers have stopped. At the end of CoreDNS it does so
// before, and once more for good after health's lameduck. Of a start that fails it tells nobody: then there is
// no writer yet, and the garbage collector closes the files.
func instanceOf(c *caddy.Controller) *instance {
	i, ok := c.Get(instanceKey{}).(*instance)
	if !ok {
		i = new(instance)
		c.Set(instanceKey{}, i)
		c.OnStartup(i.start)
		c.OnRestart(func() error { i.reloading.Store(true); return nil })
		c.OnRestartFailed(func() error { i.reloading.Store(false); return nil })
		c.OnShutdown(i.shutdown)
		c.OnFinalShutdown(i.end)
	}
	return i
}

func (i *instance) start() error {
	for _, d := range i.blocks {
		d.check(plugin.NextOrFailure)
		for _, c := range d.configs {
			o, err := i.output(c, d.buffer)
			if err != nil {
				return err
			}
			d.outputs = append(d.outputs, o)
		}
	}
	return nil
}

// output returns the output of c; the largest buffer of its users counts.
func (i *instance) output(c outputConfig, buffer int) (*output, error) {
	for _, o := range i.outputs {
		if o.config == c {
			o.limit = max(o.limit, buffer)
			return o, nil
		}
	}
	s, err := openSink(c)
	if err != nil {
		return nil, err
	}
	o := newOutput(c, s, buffer)
	i.outputs = append(i.outputs, o)
	return o, nil
}

func (i *instance) shutdown() error {
	if i.reloading.Load() {
		return i.end()
	}
	return nil
}

// end writes what there is. A query that is still on its way ends when its record is written, and servers wait
// for their queries; what comes after that is lost, and counted.
func (i *instance) end() error {
	i.each((*output).flush)
	time.AfterFunc(stopTime, func() { i.each((*output).close) })
	return nil
}

// each does something with all outputs at once, so that several that are blocked take no longer than one.
func (i *instance) each(do func(*output)) {
	var wg sync.WaitGroup
	for _, o := range i.outputs {
		wg.Go(func() { do(o) })
	}
	wg.Wait()
}
