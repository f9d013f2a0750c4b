package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` and others look for named namespaces.
const netnsDir = "/run/netns"

// namespace is one named network namespace that the lab made.
type namespace struct {
	name   string // below /run/netns
	home   netns.NsHandle
	links  *netlink.Handle // talks to the kernel inside the namespace
	mu     sync.Mutex
	handle netns.NsHandle // a pod may be removed while its client is in there
}

// newNamespace makes the namespace name. home is where threads that visit it
// go back to; it stays the caller's.
func newNamespace(name string, home netns.NsHandle) (*namespace, error) {
	n := &namespace{name: name, home: home, handle: netns.None()}
	err := onOwnThread(home, func() error {
		handle, err := netns.NewNamed(name) // moves this thread there
		if err != nil {
			// NewNamed leaves the file behind if the mount failed.
			return errors.Join(fmt.Errorf("make network namespace %s: %w", name, err), removeNetnsFile(name))
		}
		n.handle = handle
		if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink in %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, n.delete())
	}
	return n, nil
}

// do runs f on a thread that is inside the namespace. Sockets that f opens and
// processes that it starts belong to the namespace for good. f must not start
// goroutines that expect to be inside, nor end its goroutine (t.FailNow).
func (n *namespace) do(f func() error) error {
	return onOwnThread(n.home, func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, which must be locked, into the namespace.
func (n *namespace) enter() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := netns.Set(n.handle); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.name, err)
	}
	return nil
}

// delete takes away the name. The kernel destroys the namespace, with its
// links and rules, when the last socket and process in it are gone.
func (n *namespace) delete() error {
	if n.links != nil {
		n.links.Close()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var closed error
	if n.handle.IsOpen() {
		closed = n.handle.Close()
	}
	return errors.Join(closed, removeNetnsFile(n.name))
}

// removeNetnsFile unmounts and removes a named namespace; none is no error.
func removeNetnsFile(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: the file is there, but nothing is mounted on it.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// onOwnThread runs f on an operating system thread which f may move to another
// network namespace, and brings the thread back to home afterwards. A thread
// that cannot be brought back is not reused: its goroutine ends while locked to
// it, and so the Go runtime ends the thread.
func onOwnThread(home netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		defer leaveThread(home)
		err = f()
	}()
	return <-done
}

// leaveThread brings the calling, locked thread back to home and unlocks it.
func leaveThread(home netns.NsHandle) {
	if netns.Set(home) == nil {
		runtime.UnlockOSThread()
	}
}
