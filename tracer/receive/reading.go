package receive

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stuckAfter is how long a read that does not wait for data may take, and how often that is
// checked.
const stuckAfter = 100 * time.Millisecond

// reading reads datagrams from a socket such that none can block it.
//
// A datagram may come with open files (SCM_RIGHTS, unix(7)). The read has no room for them,
// so that the kernel closes them before it returns. Closing the last reference to a
// connection that lingers (SO_LINGER, socket(7)) takes as long as the sender likes. Before
// Linux 6.16 a socket cannot refuse them. A signal ends the wait.
type reading struct {
	raw          syscall.RawConn
	buf, control []byte
	thread       atomic.Int64 // which reads; 0: none
	began        atomic.Int64 // when, Unix time in ns
}

func newReading(conn *net.UnixConn) (*reading, error) {
	raw, err := conn.SyscallConn()
	return &reading{raw: raw, buf: make([]byte, maxDatagram), control: make([]byte, controlSize)}, err
}

// next waits for a datagram, which is valid until the next call.
func (r *reading) next() (datagram []byte, flags int, from origin, err error) {
	var failed error
	err = r.raw.Read(func(fd uintptr) bool {
		datagram, flags, from, failed = r.take(int(fd))
		return !errors.Is(failed, unix.EAGAIN)
	})
	return datagram, flags, from, errors.Join(err, failed)
}

// take takes a datagram without waiting for one.
func (r *reading) take(fd int) (datagram []byte, flags int, from origin, err error) {
	runtime.LockOSThread() // which may have to be woken
	defer runtime.UnlockOSThread()
	r.began.Store(time.Now().UnixNano())
	r.thread.Store(int64(unix.Gettid()))
	defer r.thread.Store(0)
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, r.buf, r.control, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		switch {
		case err != nil:
			return nil, flags, origin{}, err
		case n == 0 && oobn == 0: // not even a sender: no datagram
			return nil, flags, origin{}, io.EOF
		}
		return r.buf[:n], flags, originOf(r.control[:oobn]), nil
	}
}

// wake wakes the reader until done is closed, whenever it is held up.
func (r *reading) wake(done <-chan struct{}) {
	tick := time.NewTicker(stuckAfter)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			if thread := r.thread.Load(); thread != 0 && now.UnixNano()-r.began.Load() > int64(stuckAfter) {
				// Go's own signal to threads, without meaning at any other time. One that has just
				// gone on needs it no more.
				_ = unix.Tgkill(os.Getpid(), int(thread), unix.SIGURG)
			}
		}
	}
}

// read takes datagrams until the socket is retired, then those that are left.
func (r *Receiver) read(conn *net.UnixConn) {
	defer conn.Close()
	in, err := newReading(conn)
	if err != nil {
		r.lastError.Store(&err)
		return
	}
	done := make(chan struct{})
	defer close(done)
	go in.wake(done)
	for {
		datagram, flags, from, err := in.next()
		if err != nil {
			break
		}
		r.datagram(datagram, flags, from)
	}
	err = in.raw.Control(func(fd uintptr) {
		for {
			datagram, flags, from, err := in.take(int(fd))
			if err != nil {
				return
			}
			r.datagram(datagram, flags, from)
		}
	})
	if err != nil {
		r.lastError.Store(&err)
	}
}
