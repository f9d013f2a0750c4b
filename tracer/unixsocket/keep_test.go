package unixsocket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keep binds a datagram socket, and anew as often as need be.
func keep(t *testing.T, path string, refuse *error) *Keeper {
	t.Helper()
	k, err := Keep(path, func() error {
		if *refuse != nil {
			return *refuse
		}
		if err := prepare("unixgram", path, "--listen"); err != nil {
			return err
		}
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// reachable tells whether somebody takes datagrams at the path.
func reachable(path string) bool {
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// Whatever happens to the file, the socket is restored at its path, which is reported once.
func TestKeeperBindsAnew(t *testing.T) {
	for name, remove := range map[string]func(path string) error{
		"the file":             os.Remove,
		"its folder":           func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"renamed":              func(path string) error { return os.Rename(path, path+".old") },
		"the folder's renamed": func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run", "a.sock")
			k := keep(t, path, new(error))
			if news := k.look(); news != "" || k.State() != (State{}) {
				t.Errorf("nothing happened: %q %+v", news, k.State())
			}
			if err := remove(path); err != nil {
				t.Fatal(err)
			}
			if news := k.look(); !strings.Contains(news, path+" was removed by somebody") {
				t.Errorf("reported: %q", news)
			}
			if news := k.look(); news != "" || !reachable(path) || k.State() != (State{Rebound: 1}) {
				t.Errorf("then: %q, reachable %t, %+v", news, reachable(path), k.State())
			}
		})
	}
}

// What cannot be repaired is reported once, and tried until it can.
func TestKeeperReportsWhatItCannotMend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	var refuse error
	k := keep(t, path, &refuse)
	refuse = errors.New("read-only file system")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if news := k.look(); !strings.Contains(news, "cannot be made again") || !strings.Contains(news, "read-only") {
		t.Errorf("reported: %q", news)
	}
	if news := k.look(); news != "" || !errors.Is(k.State().Err, refuse) || k.State().Rebound != 0 {
		t.Errorf("reported again: %q; %+v", news, k.State())
	}
	refuse = nil
	if news := k.look(); !strings.Contains(news, "made again") || k.State() != (State{Rebound: 1}) || !reachable(path) {
		t.Errorf("mended: %q, %+v", news, k.State())
	}
}

// A folder that was out of sight for a while is no reason to bind anew.
func TestKeeperFindsItAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "a.sock")
	var refuse error
	k := keep(t, path, &refuse)
	refuse = errors.New("no")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if k.look() == "" {
		t.Error("nothing reported")
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if news := k.look(); !strings.Contains(news, "can be reached again") || k.State() != (State{}) {
		t.Errorf("reported %q, %+v", news, k.State())
	}
}

// Another tracer's socket is left alone, while the Keeper looks and when it ends.
func TestKeeperLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	k := keep(t, path, new(error))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if news := k.look(); !strings.Contains(news, "in use") {
		t.Errorf("reported: %q", news)
	}
	if err := k.Remove(); err != nil || !reachable(path) {
		t.Errorf("at the end: %v, reachable %t", err, reachable(path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if news := k.look(); news != "" || reachable(path) {
		t.Errorf("after the end: %q, reachable %t", news, reachable(path))
	}
}
