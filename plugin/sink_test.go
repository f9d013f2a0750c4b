package dnstrace

import (
	"bytes"
	"errors"
	"fmt"
	clog "log"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A socket of another user: the error says what would help, and what is lost counts as
// without a receiver.
func TestSocketOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run it as root: it becomes another user")
	}
	path := filepath.Join(t.TempDir(), "records.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is another user's, ends here
		const nobody = 65534
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0); e != 0 {
			failed <- e
			return
		}
		_, err := (&unixSink{path: path}).write([]byte("{}\n"))
		failed <- err
	}()
	err = <-failed
	if !errors.Is(err, errNoReceiver) || !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "--listen-owner") || strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("%v", err)
	}
}

// A socket that was not there and then may not be written to is told of twice: the first
// reason is no longer the one to mend.
func TestReportOfAnotherReason(t *testing.T) {
	var logged bytes.Buffer
	clog.SetOutput(&logged)
	defer clog.SetOutput(os.Stderr)
	o := &output{}
	for _, err := range []error{
		fmt.Errorf("%w: %w", errNoReceiver, syscall.ENOENT), fmt.Errorf("%w: %w", errNoReceiver, syscall.ECONNREFUSED),
		notAllowedError{syscall.EACCES}, notAllowedError{syscall.EACCES}, nil,
	} {
		o.report(err)
	}
	if got := strings.Count(logged.String(), "\n"); got != 3 || !strings.Contains(logged.String(), "--listen-owner") || !strings.Contains(logged.String(), "works again") {
		t.Errorf("%d lines:\n%s", got, &logged)
	}
}
