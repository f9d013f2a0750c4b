// Package unixsocket is what the sockets of the tracer have in common.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// dirMode lets a CoreDNS that is not root reach the record socket. What each
// socket allows is its own mode.
const dirMode = 0o755

// Prepare makes room for a socket at path: it makes the directory if need be,
// and removes the socket of a process that died. It fails if somebody still
// serves the socket, or if something else is there; option is the flag that
// chooses another path. network is unix or unixgram.
func Prepare(network, path, option string) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return err
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
