package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// errStopped ends the requests in flight when the server stops.
var errStopped = errors.New("the tracer stops")

// Listener accepts connections at the unix socket, also when that was bound anew.
type Listener struct {
	*unixsocket.Keeper
	path    string
	current atomic.Pointer[net.UnixListener]
}

// Listen opens the unix socket at path, which only this user, root as a rule, can connect
// to, in a directory that it makes if need be. It takes the place of a socket that nobody listens on any
// more, and fails if somebody does. The caller must close it, and should let its
// Keeper run.
func Listen(path string) (*Listener, error) {
	l := &Listener{path: path}
	var err error
	if l.Keeper, err = unixsocket.Keep(path, l.bind); err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	return l, nil
}

// bind opens a socket at the path, and accepts from it in the place of the one before.
func (l *Listener) bind() error {
	next, err := unixsocket.Listen(l.path, "--api")
	if err != nil {
		return err
	}
	if before := l.current.Swap(next); before != nil {
		return before.Close()
	}
	return nil
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		from := l.current.Load()
		conn, err := from.Accept()
		if err == nil || l.current.Load() == from {
			return conn, err
		}
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.current.Load().Addr() }

// Close implements net.Listener. It removes the socket.
func (l *Listener) Close() error { return errors.Join(l.Remove(), l.current.Load().Close()) }

// Serve answers requests on l until ctx ends, then ends those in flight and
// closes l. It returns nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	requests, stop := context.WithCancelCause(context.Background())
	defer stop(errStopped)
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       idleWithin,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(netutil.LimitListener(l, maxConns)) }()
	select {
	case err := <-done:
		return fmt.Errorf("API: %w", err)
	case <-ctx.Done():
	}
	stop(errStopped)
	// A client that does not read must not keep the tracer from stopping.
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		_ = s.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("API: %w", err)
	}
	return nil
}
