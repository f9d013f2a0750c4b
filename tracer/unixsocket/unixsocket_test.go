package unixsocket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// asRoot skips nothing silently: what only root can set up is tested by `make test`.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run it as root: it gives folders to other users")
	}
}

// open opens a socket of each kind at a path, and closes it.
func open(path string) error {
	conn, err := ListenPacket(path, "--listen", Mine, nil)
	if err != nil {
		return err
	}
	return errors.Join(conn.Close(), os.Remove(path))
}

// The mode of a socket is its own from the moment at which it is there, whatever the umask,
// and the umask is what it was.
func TestModeFromTheBeginning(t *testing.T) {
	dir := t.TempDir()
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	path := filepath.Join(dir, "a.sock")
	stop, done := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm()&^ModeGroup != 0 {
				once.Do(func() { t.Errorf("there is a socket of mode %o", info.Mode().Perm()) })
			}
		}
	}()
	for range 300 {
		if err := open(path); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if now := syscall.Umask(0); now != 0 {
		t.Errorf("the umask is %o", now)
	}
	for umask, mode := range map[int]os.FileMode{0: ModeOwner, 0o777: ModeOwner} {
		syscall.Umask(umask)
		l, err := Listen(path, "--api")
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("umask %o: mode %v, %v", umask, info.Mode(), err)
		}
		if err := errors.Join(l.Close(), os.Remove(path)); err != nil {
			t.Error(err)
		}
	}
	conn, err := ListenPacket(path, "--listen", Mine, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != ModeGroup {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// While sockets are made, other goroutines create nothing that is open to more than they
// ask for.
func TestOthersFilesMeanwhile(t *testing.T) {
	dir := t.TempDir()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			file := filepath.Join(dir, "file")
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
			if err != nil {
				t.Error(err)
				return
			}
			info, err := f.Stat()
			if err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if err := errors.Join(f.Close(), os.Remove(file)); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 300 {
		if err := open(filepath.Join(dir, "a.sock")); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
}

// A folder in which others could put another socket is refused with what would help, and
// nothing is made there; so is one that others can replace on the way to it.
func TestFolders(t *testing.T) {
	asRoot(t)
	const nobody = 65534
	for _, tc := range []struct {
		name string
		make func(dir string) error
		path string
		want string // empty: it is fine
	}{
		{"ours", func(dir string) error { return nil }, "a.sock", ""},
		{"made if need be", func(dir string) error { return nil }, "x/y/a.sock", ""},
		{"for all", func(dir string) error { return os.Chmod(dir, 0o777) }, "a.sock", "can be written to by others (mode drwxrwxrwx)"},
		{"for all, but to remove (as /tmp)", func(dir string) error { return os.Chmod(dir, os.ModeSticky|0o777) }, "a.sock", "chmod go-w"},
		{"for a group", func(dir string) error { return os.Chmod(dir, 0o775) }, "a.sock", "can be written to by others"},
		{"of another", func(dir string) error { return os.Chown(dir, nobody, nobody) }, "a.sock", "belongs to user 65534"},
		{"below one for all, but to remove", func(dir string) error { return os.Chmod(dir, os.ModeSticky|0o777) }, "x/a.sock", ""},
		{"below one for all", func(dir string) error { return os.Chmod(dir, 0o777) }, "x/a.sock", "can be written to by others"},
		{"below one of another", func(dir string) error { return os.Chown(dir, nobody, nobody) }, "x/a.sock", "belongs to user 65534"},
		{"behind a link of ours", func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o755), os.Symlink("real", filepath.Join(dir, "link")))
		}, "link/a.sock", ""},
		{"behind a link of another", func(dir string) error {
			link := filepath.Join(dir, "link")
			return errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o755), os.Symlink("real", link), os.Lchown(link, nobody, nobody))
		}, "link/a.sock", "is a link of user 65534"},
		{"behind a link to one for all", func(dir string) error {
			all := filepath.Join(dir, "all")
			return errors.Join(os.Mkdir(all, 0o755), os.Chmod(all, 0o777), os.Symlink(all, filepath.Join(dir, "link")))
		}, "link/a.sock", "can be written to by others"},
		{"behind links in a circle", func(dir string) error {
			return errors.Join(os.Symlink("b", filepath.Join(dir, "a")), os.Symlink("a", filepath.Join(dir, "b")))
		}, "a/a.sock", "too many levels of symbolic links"},
		{"below a file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), nil, 0o600) }, "file/a.sock", "not a directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			if err := errors.Join(os.Mkdir(dir, 0o755), tc.make(dir)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, tc.path)
			err := open(path)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Error("there is a socket all the same")
			}
		})
	}
}

// A link in the place of the socket is not followed: where it leads nothing is made,
// removed or changed.
func TestLinkInPlaceOfTheSocket(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	served, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: target, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := served.Close(); err != nil { // dead: what stands in the way would be removed
		t.Fatal(err)
	}
	before, err := os.Lstat(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{target, filepath.Join(dir, "missing"), "/etc/passwd"} {
		link := filepath.Join(dir, "a.sock")
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if err := open(link); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("%s: %v", to, err)
		}
		if err := os.Remove(link); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	if after, err := os.Lstat(target); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("%v, %v", after, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}

func TestParseOwner(t *testing.T) {
	for spec, want := range map[string]Owner{
		"root": {0, 0}, "0": {0, 0}, "root:65532": {0, 65532}, "65532:65532": {65532, 65532}, "4711": {4711, leave}, "root:root": {0, 0},
	} {
		if got, err := ParseOwner(spec); err != nil || got != want {
			t.Errorf("%s: %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"", ":", "root:", ":root", "nobody-here", "root:nobody-here", "-1", "0:-1", "0:0:0", "99999999999"} {
		if got, err := ParseOwner(spec); err == nil {
			t.Errorf("%q: %+v", spec, got)
		}
	}
}

// A socket is its owner's; the default is that of deploy/, and holds also without
// capabilities, when it is made again.
func TestOwner(t *testing.T) {
	asRoot(t)
	o, err := DefaultOwner()
	if err != nil || o != (Owner{0, coreDNSGroup}) {
		t.Fatalf("%+v, %v", o, err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	member := false
	for _, g := range groups {
		member = member || g == coreDNSGroup
	}
	if !member {
		t.Errorf("groups %v", groups)
	}
	for _, o := range []Owner{o, {65532, 65532}, Mine} {
		path := filepath.Join(t.TempDir(), "a.sock")
		conn, err := ListenPacket(path, "--listen", o, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		want := Owner{max(o.UID, 0), max(o.GID, 0)}
		if got := (Owner{int(st.Uid), int(st.Gid)}); got != want || info.Mode().Perm() != ModeGroup {
			t.Errorf("%+v: is of %+v, mode %o", o, got, info.Mode().Perm())
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A socket that is no file has no mode: anybody could connect to it.
func TestNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"", "@", "@dnstrace"} {
		if l, err := Listen(path, "--api"); err == nil || !strings.Contains(err.Error(), "names no file") || !strings.Contains(err.Error(), "(--api)") {
			t.Errorf("%q: %v, %v", path, l, err)
		}
		if err := open(path); err == nil || !strings.Contains(err.Error(), "names no file") {
			t.Errorf("%q: %v", path, err)
		}
	}
	if err := open("./@dnstrace"); err != nil {
		t.Error(err)
	}
}
