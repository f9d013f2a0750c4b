package dnstrace

import "sync"

// lifecycle opens and closes the outputs of a server block.
type lifecycle struct {
	plugin     *Dnstrace
	restarting bool
}

// A reload starts the new server blocks before it stops the old ones. Where it
// fails in between, nobody tells those that started already: the old ones do.
var (
	startedMu sync.Mutex
	started   []*Dnstrace // since the reload began
	stopping  []*Dnstrace // the others of those that stop, or will when the reload succeeds
)

func (l *lifecycle) start() error {
	l.plugin.prepareChain()
	for _, c := range l.plugin.configs {
		o, err := acquire(c, l.plugin.buffer)
		if err != nil {
			l.plugin.releaseOutputs()
			return err
		}
		l.plugin.outputs = append(l.plugin.outputs, o)
	}
	startedMu.Lock()
	started = append(started, l.plugin)
	startedMu.Unlock()
	return nil
}

// prepareChain looks at the plugins after this one, and puts its handlers
// between them.
func (d *Dnstrace) prepareChain() {
	d.chain = readChain(d.Next)
	if d.Next == nil {
		return
	}
	if !d.stamp.off() {
		d.Next, _ = d.addStampers(pluginName, d.Next)
	}
	d.Next = addHops(d.Next)
	d.first = newHop(d.Next)
}

func (l *lifecycle) restart() error {
	l.restarting = true
	startedMu.Lock()
	started, stopping = nil, append(stopping, l.plugin)
	startedMu.Unlock()
	return nil
}

func (l *lifecycle) restartFailed() error {
	l.restarting = false
	startedMu.Lock()
	failed := started
	started, stopping = nil, nil
	startedMu.Unlock()
	releaseAll(failed)
	return nil
}

// shutdown runs after the servers of a reload have stopped. At the end of
// CoreDNS it runs before that, and before health's lameduck: then the outputs
// stay for finalShutdown.
func (l *lifecycle) shutdown() error {
	if l.restarting {
		releaseStopping()
		return nil
	}
	startedMu.Lock()
	stopping = append(stopping, l.plugin)
	startedMu.Unlock()
	return nil
}

func (l *lifecycle) finalShutdown() error {
	releaseStopping()
	return nil
}

// releaseStopping gives back what all server blocks that stop had. CoreDNS calls each of
// them; the first does it for all, so that several with blocked outputs take no longer
// than one.
func releaseStopping() {
	startedMu.Lock()
	all := stopping
	stopping = nil
	startedMu.Unlock()
	releaseAll(all)
}

func releaseAll(all []*Dnstrace) {
	var wg sync.WaitGroup
	for _, d := range all {
		wg.Go(d.releaseOutputs)
	}
	wg.Wait()
}

// releaseOutputs gives back what the server block had. Its slice stays: queries
// that are still on their way find closed queues, and are counted.
func (d *Dnstrace) releaseOutputs() {
	d.release.Do(func() {
		// At once, so that several that are blocked take no longer than one.
		var wg sync.WaitGroup
		for _, o := range d.outputs {
			wg.Go(o.release)
		}
		wg.Wait()
	})
}
