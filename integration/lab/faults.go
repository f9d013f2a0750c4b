package lab

import (
	"sync"
)

// undoOnce makes an undo function that works once, and no more after Close,
// when there is nothing left to undo. An error is returned by Close.
func (l *Lab) undoOnce(f func() error) func() {
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			closed := l.closed
			l.mu.Unlock()
			if !closed {
				l.report(f())
			}
		})
	}
}

// SilentUpstream makes the i-th upstream take queries for names at or below
// zone ("." for all) without answering, until undone.
func (l *Lab) SilentUpstream(i int, zone string) (undo func()) {
	return l.Upstream(i).Set(zone, Behaviour{Silent: true})
}

// Listener is what has port 53 open on a host: a Process or a Server.
type Listener interface {
	Start() error
	Stop() error
}

// NoListener stops a DNS server, so that its port is closed and queries to it
// provoke ICMP port unreachable or a TCP reset. undo starts the server again
// and waits until it is ready.
func (l *Lab) NoListener(server Listener) (undo func(), err error) {
	if err := server.Stop(); err != nil {
		return nil, err
	}
	return l.undoOnce(server.Start), nil
}

// UntranslatedReplies takes the bridge's packets away from netfilter, until undone: what a
// pod answers another is not translated back, and comes from its own address instead of
// the Service's. Queries are translated all the same, as the node routes them.
func (l *Lab) UntranslatedReplies() (undo func(), err error) {
	node := l.Host(Node)
	filter := func(on string) error {
		return node.sysctl(setting{"net/bridge/bridge-nf-call-iptables", on}, setting{"net/bridge/bridge-nf-call-ip6tables", on})
	}
	if err := filter("0"); err != nil {
		return nil, err
	}
	return l.undoOnce(func() error { return filter("1") }), nil
}

// ForgetConnections empties the node's connection tracking, as where entries expire: what
// is under way is translated no more.
func (l *Lab) ForgetConnections() error { return l.Host(Node).flushConntrack() }

// ClosedClientPort makes a client close its socket as soon as its query has
// left, so that the response meets a closed port, until undone. Exchanges of
// this client return ErrGaveUp meanwhile.
func (l *Lab) ClosedClientPort(client string) (undo func()) {
	host := l.Host(client)
	host.hasty.Add(1)
	return l.undoOnce(func() error {
		host.hasty.Add(-1)
		return nil
	})
}
