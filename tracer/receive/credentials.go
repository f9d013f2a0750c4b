package receive

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// origin is what the kernel says of a datagram.
type origin struct {
	pid  int    // in our PID namespace; 0: the sender is not in there
	uid  uint32 // in our user namespace
	came time.Time
}

// String implements fmt.Stringer.
func (o origin) String() string { return fmt.Sprintf("process %d of user %d", o.pid, o.uid) }

// controlSize has room for what askForOrigin asks for.
var controlSize = unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{})))

// askForOrigin lets the kernel say of each datagram who sent it, and when: it may have
// waited before it is read.
func askForOrigin(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_PASSCRED, unix.SO_TIMESTAMPNS} {
			if set == nil {
				set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1)
			}
		}
	})
	if err != nil {
		return err
	}
	if set != nil {
		return fmt.Errorf("ask for the senders of records: %w", set)
	}
	return nil
}

// originOf reads what came with a datagram. One that came before the kernel was asked has
// nothing: its sender is unknown, and it came now.
func originOf(control []byte) origin {
	from := origin{came: time.Now()}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return from
	}
	for i := range messages {
		m := &messages[i]
		if c, err := unix.ParseUnixCredentials(m); err == nil {
			from.pid, from.uid = int(c.Pid), c.Uid
		}
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			from.came = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return from
}
