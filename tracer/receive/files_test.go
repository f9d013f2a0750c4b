package receive

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// lingering returns a connection that takes an hour to close: its peer reads nothing of
// what was sent (SO_LINGER, socket(7)).
func lingering(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Connect(fd, at), unix.SetNonblock(fd, true),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600})); err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	for block := make([]byte, 1<<16); err == nil; {
		_, err = unix.Write(fd, block)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return fd
}

// Open files that come with a datagram are refused by the kernel where it can (Linux 6.16):
// closing them in the tracer can take as long as the sender likes.
func TestOpenFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	r, err := Listen(path, unixsocket.Mine)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := error(unix.EPERM)
	if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0); err != nil || unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 0) != nil || unix.Close(fd) != nil {
		want = nil
	}
	if err := sendFiles(path, int(os.Stdin.Fd())); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// sendFiles sends a record with open files to a socket.
func sendFiles(path string, fds ...int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	err = unix.Sendmsg(fd, line(trace.KindQuery), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: path}, 0)
	return errors.Join(err, unix.Close(fd))
}

// Where the kernel cannot refuse them, the reader is woken from closing them: records are
// read on, and the end comes.
func TestOpenFilesHoldNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	conn, err := unixsocket.ListenPacket(path, "--listen", unixsocket.Mine, func(fd int) error {
		err := setOptions(fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 1) // as before Linux 6.16
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const messages = 3
	for range messages {
		fds := []int{lingering(t), lingering(t)}
		if err := sendFiles(path, fds...); err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds { // the datagram has the last reference, since nobody reads yet
			if err := unix.Close(fd); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := newReceiver(queued)
	if err := r.start(conn); err != nil {
		t.Fatal(err)
	}
	if err := sendFiles(path); err != nil {
		t.Fatal(err)
	}
	wait(t, r, messages+1)
	if err := r.retire(nil); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		r.readers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
