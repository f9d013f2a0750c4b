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
	"time"

	"github.com/coredns/caddy"
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
		_, err := (&unixSink{path: path}).write(t.Context(), []byte("{}\n"))
		failed <- err
	}()
	err = <-failed
	if !errors.Is(err, errRefused) || !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "--listen-owner") || strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("%v", err)
	}
}

// A socket that was not there and then may not be written to is logged twice: the first
// reason is no longer the one to mend.
func TestReportOfAnotherReason(t *testing.T) {
	var logged bytes.Buffer
	clog.SetOutput(&logged)
	defer clog.SetOutput(os.Stderr)
	o := &output{}
	for _, err := range []error{
		fmt.Errorf("%w: %w", errNoReceiver, syscall.ENOENT), fmt.Errorf("%w: %w", errNoReceiver, syscall.ECONNREFUSED),
		fmt.Errorf("%w: --listen-owner", errRefused), fmt.Errorf("%w: --listen-owner", errRefused), nil,
	} {
		o.report(err)
	}
	if got := strings.Count(logged.String(), "\n"); got != 3 || !strings.Contains(logged.String(), "--listen-owner") || !strings.Contains(logged.String(), "works again") {
		t.Errorf("%d lines:\n%s", got, &logged)
	}
}

// Somebody else serves a socket where that of the tracer should be, in a folder, or by a link,
// of his own: he gets no record, and the error has a word on what to do. CoreDNS starts all the
// same: DNS comes first. Once it is right, records go out.
func TestSocketOfOthers(t *testing.T) {
	const nobody = 65534
	for name, tc := range map[string]struct {
		attack, mend func(dir, path string) error
		want         string
	}{
		"a folder of all": {
			func(dir, _ string) error { return os.Chmod(dir, 0o777) },
			func(dir, _ string) error { return os.Chmod(dir, 0o755) }, "chmod go-w",
		},
		"a sticky one": {
			func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
			func(dir, _ string) error { return os.Chmod(dir, 0o755) }, "chmod go-w",
		},
		"a folder of another user": {
			func(dir, _ string) error { return os.Chown(dir, nobody, nobody) },
			func(dir, _ string) error { return os.Chown(dir, 0, 0) }, "choose a folder of user 0 or root",
		},
		"a link to such a folder": {
			func(dir, _ string) error {
				return errors.Join(os.Rename(dir, dir+".his"), os.Chown(dir+".his", nobody, nobody), os.Symlink(dir+".his", dir))
			},
			func(dir, _ string) error { return os.Chown(dir+".his", 0, 0) }, "choose a folder of user 0 or root",
		},
		"a link to the socket": {
			func(_, path string) error {
				return errors.Join(os.Rename(path, path+".his"), os.Symlink(path+".his", path))
			},
			func(_, path string) error { return os.Rename(path+".his", path) }, "is no socket",
		},
		"a file": {
			func(_, path string) error {
				return errors.Join(os.Rename(path, path+".away"), os.WriteFile(path, nil, 0o644))
			},
			func(_, path string) error { return os.Rename(path+".away", path) }, "is no socket",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "records.sock")
			his := listen(t, path)
			if err := tc.attack(dir, path); err != nil {
				t.Fatal(err)
			}
			s := &unixSink{path: path}
			if _, err := s.write(t.Context(), []byte("{}\n")); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if err := setup(caddy.NewTestController("dns", "dnstrace {\n output unix "+path+"\n}")); err != nil {
				t.Error(err)
			}
			if err := his.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := his.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("he read %d bytes, %v", n, err)
			}
			if err := tc.mend(dir, path); err != nil {
				t.Fatal(err)
			}
			s.retry = time.Time{}
			if _, err := s.write(t.Context(), []byte("{}\n")); err != nil {
				t.Errorf("mended: %v", err)
			}
			if got := receive(t, his); string(got) != "{}\n" {
				t.Errorf("received %q", got)
			}
		})
	}
}
