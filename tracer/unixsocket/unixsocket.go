// Package unixsocket is what the sockets of the tracer have in common.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

// Modes of a socket: nobody but its owner can connect, or its group can as well.
const (
	ModeOwner = 0o600
	ModeGroup = 0o660
)

// dirMode lets a CoreDNS that is not root reach the record socket. What each
// socket allows is its own mode.
const dirMode = 0o755

// binding is held while the umask is that of a socket, which is the process's.
var binding sync.Mutex

// Listen opens a stream socket at path that only this user can connect to. The caller owns
// it; its file stays when it is closed ([Keeper]). It takes the place of the socket of a
// process that died, and fails where somebody still serves one, where something else is
// there, or where others could put something else there; option is the flag that chooses
// another path.
func Listen(path, option string) (*net.UnixListener, error) {
	if err := prepare("unix", path, option); err != nil {
		return nil, err
	}
	var l net.Listener
	err := bind(ModeOwner, func() (err error) {
		var lc net.ListenConfig
		l, err = lc.Listen(context.Background(), "unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	opened := l.(*net.UnixListener) // what listening on a unix socket gives
	opened.SetUnlinkOnClose(false)
	return opened, nil
}

// ListenPacket opens a datagram socket at path that its owner and its group can write to,
// otherwise as [Listen]. set sets options before anybody can send to it; it may be nil.
func ListenPacket(path, option string, owner Owner, set func(fd int) error) (*net.UnixConn, error) {
	if err := prepare("unixgram", path, option); err != nil {
		return nil, err
	}
	var failed error
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if set == nil {
			return nil
		}
		err := c.Control(func(fd uintptr) { failed = set(int(fd)) })
		return errors.Join(err, failed)
	}}
	var opened net.PacketConn
	err := bind(ModeGroup, func() (err error) {
		opened, err = lc.ListenPacket(context.Background(), "unixgram", path)
		return err
	})
	if failed != nil {
		return nil, failed // without the words around it
	}
	if err != nil {
		return nil, err
	}
	conn := opened.(*net.UnixConn) // what a unix socket gives
	if err := owner.give(path); err != nil {
		return nil, errors.Join(err, os.Remove(path), conn.Close())
	}
	return conn, nil
}

// bind makes a socket whose file has a mode from the moment at which it is there: a mode
// that is set by path, later, may be set of something else. What other goroutines create
// meanwhile can be closed to more than they ask for, never open to more.
func bind(mode int, make func() error) error {
	binding.Lock()
	defer binding.Unlock()
	before := syscall.Umask(0o777 &^ mode)
	defer syscall.Umask(before)
	return make()
}

// prepare makes room for a socket at path: it makes the directory if need be, and removes
// the socket of a process that died.
func prepare(network, path, option string) error {
	if err := trustedpath.Socket(path); err != nil {
		return fmt.Errorf("%w (%s)", err, option)
	}
	binding.Lock() // a directory that is made has the process's own umask
	err := trustedpath.Rules{Make: dirMode}.Folder(filepath.Dir(path))
	binding.Unlock()
	if err != nil {
		return fmt.Errorf("%w (%s)", err, option)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is no socket: remove it, or choose another path with %s", path, option)
	}
	// A socket that is served accepts a connection, datagrams too; a dead one
	// refuses it.
	conn, err := net.DialTimeout(network, path, time.Second)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("%s is in use: another `dnstrace run` serves it; stop that one, or choose another path with %s", path, option)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}
