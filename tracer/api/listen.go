package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// socketMode lets only the tracer's user, root as a rule, see the node's
// lookups.
const socketMode = 0o600

// errStopped ends the requests in flight when the server stops.
var errStopped = errors.New("the tracer stops")

// Listener accepts connections at the unix socket, also when that was bound anew.
type Listener struct {
	*unixsocket.Keeper
	path    string
	current atomic.Pointer[net.UnixListener]
}

// Listen opens the unix socket at path, with mode 0600, in a directory that it
// makes if need be. It takes the place of a socket that nobody listens on any
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
	if err := unixsocket.Prepare("unix", l.path, "--api"); err != nil {
		return err
	}
	// The kernel gives the file the mode of the unbound socket: there is no
	// moment at which others can connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, chmodErr)
	}}
	opened, err := lc.Listen(context.Background(), "unix", l.path)
	if err != nil {
		return err
	}
	next := opened.(*net.UnixListener) // what listening on a unix socket gives
	next.SetUnlinkOnClose(false)       // the Keeper knows whose the file is
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
