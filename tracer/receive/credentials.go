package receive

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// controlSize has room for what setOptions asks for, and for no open file.
var controlSize = unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{})))

// soPassRights is the option by which a socket accepts open files, on by default (Linux
// 6.16, include/uapi/asm-generic/socket.h).
const soPassRights = 83

// setOptions makes the kernel report the sender and the time of each datagram, which may
// wait before it is read, and refuse open files where it can: the sender chooses how long it
// takes to close them (see [reading]).
func setOptions(fd int) error {
	for _, option := range []int{unix.SO_PASSCRED, unix.SO_TIMESTAMPNS} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return fmt.Errorf("ask for the senders of records: %w", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 0); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("refuse open files: %w", err)
	}
	return nil
}

// originOf reads what came with a datagram.
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
