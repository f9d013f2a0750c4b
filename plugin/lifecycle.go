package dnstrace

import (
	"slices"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
)

// stopTime is longer than CoreDNS waits for queries when it stops its servers, which is 5 s.
const stopTime = 6 * time.Second

// lifecycle opens and closes the outputs of an instance: all server blocks of a Corefile.
//
// Caddy tells the plugins that an instance starts, and that it shuts down, but not that its
// start failed after theirs, and at the end of CoreDNS it shuts down the plugins first and
// stops the servers then. Its list of instances tells: one is in there from before it starts
// until its servers have stopped, or its start has failed.
type lifecycle struct {
	blocks  []*Dnstrace
	release sync.Once
}

// lifecycleKey is the key of the lifecycle in the storage of an instance.
type lifecycleKey struct{}

// add makes a server block part of its instance.
func (d *Dnstrace) add(c *caddy.Controller) {
	l, ok := c.Get(lifecycleKey{}).(*lifecycle)
	if !ok {
		l = new(lifecycle)
		c.Set(lifecycleKey{}, l)
		c.OnStartup(l.start)
		c.OnShutdown(l.shutdown)
		c.OnFinalShutdown(l.finalShutdown)
	}
	l.blocks = append(l.blocks, d)
}

// start opens the outputs.
func (l *lifecycle) start() error {
	for _, d := range l.blocks {
		d.check(plugin.NextOrFailure)
		for _, c := range d.configs {
			o, err := acquire(c, d.buffer)
			if err != nil {
				l.close()
				return err
			}
			d.outputs = append(d.outputs, o)
		}
	}
	for _, other := range caddy.Instances() {
		l.follow(other)
	}
	return nil
}

// successor is the last instance that started while another one ran: in a reload its own
// next one, which it is told of if that fails.
type successor struct{ *lifecycle }

type successorKey struct{}

// follow closes the outputs if this is the start of a reload of another instance, and fails.
func (l *lifecycle) follow(other *caddy.Instance) {
	other.StorageMu.Lock()
	defer other.StorageMu.Unlock()
	if other.Storage[lifecycleKey{}] == l {
		return
	}
	s, ok := other.Storage[successorKey{}].(*successor)
	if !ok {
		s = new(successor)
		other.Storage[successorKey{}] = s
		other.OnRestartFailed = append(other.OnRestartFailed, func() error { return s.shutdown() })
	}
	s.lifecycle = l
}

// isThere reports whether the instance is starting or running.
func (l *lifecycle) isThere() bool {
	return slices.ContainsFunc(caddy.Instances(), func(i *caddy.Instance) bool {
		i.StorageMu.RLock()
		defer i.StorageMu.RUnlock()
		return i.Storage[lifecycleKey{}] == l
	})
}

// shutdown runs after the servers of a reload have stopped, but before those of the end; and
// after a reload to this instance has failed.
func (l *lifecycle) shutdown() error {
	if !l.isThere() {
		l.close()
	}
	return nil
}

// finalShutdown writes what there is, after health's lameduck. The servers are still to stop:
// from now on a query ends when its record is written, and servers wait for their queries.
func (l *lifecycle) finalShutdown() error {
	l.each((*output).flush)
	time.AfterFunc(stopTime, l.close)
	return nil
}

// close gives back the outputs. The blocks keep them: queries that are still on their way
// find them closed, and their records are counted.
func (l *lifecycle) close() {
	l.release.Do(func() { l.each((*output).release) })
}

// each does something with all outputs at once, so that several that are blocked take no
// longer than one.
func (l *lifecycle) each(do func(*output)) {
	var wg sync.WaitGroup
	for _, d := range l.blocks {
		for _, o := range d.outputs {
			wg.Go(func() { do(o) })
		}
	}
	wg.Wait()
}
