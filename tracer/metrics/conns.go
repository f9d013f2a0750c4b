package metrics

import (
	"container/list"
	"net"
	"sync"
)

// crowded is a listener with at most so many connections: for one more, the oldest goes.
// Waiting (netutil.LimitListener) would let a client that holds all connections keep out
// Prometheus, whose own are short or can be made again.
type crowded struct {
	net.Listener
	most int

	mu    sync.Mutex
	conns *list.List // of *member, oldest first
}

func newCrowded(l net.Listener, most int) *crowded {
	return &crowded{Listener: l, most: most, conns: list.New()}
}

// Accept implements net.Listener.
func (c *crowded) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m := &member{Conn: conn, crowd: c}
	c.mu.Lock()
	m.place = c.conns.PushBack(m)
	var oldest *member
	if c.conns.Len() > c.most {
		oldest = c.conns.Front().Value.(*member)
	}
	c.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // its handler closes it again, and gets the error
	}
	return m, nil
}

// member is one connection.
type member struct {
	net.Conn
	crowd *crowded
	place *list.Element // guarded by crowd.mu
}

// Close implements net.Conn.
func (m *member) Close() error {
	m.crowd.mu.Lock()
	if m.place != nil {
		m.crowd.conns.Remove(m.place)
		m.place = nil
	}
	m.crowd.mu.Unlock()
	return m.Conn.Close()
}
