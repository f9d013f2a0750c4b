package recordfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// somebody is a user that owns nothing here.
const somebody = 65534

// must fails the test unless a step of its setting worked.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever others can put at a path, or do to the folders before it, is refused, at
// once and with what would help; what it leads to stays as it was.
func TestAttacks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files to another user: run it as root")
	}
	for _, tc := range []struct {
		name   string
		attack func(t *testing.T, dir, path string)
		want   string // after the path
	}{
		{"link", func(t *testing.T, dir, path string) {
			must(t, os.WriteFile(dir+"/victim", []byte("kept\n"), 0o600))
			must(t, os.Symlink(dir+"/victim", path))
		}, "it is a symbolic link, and links are not followed: name the file itself"},
		{"link to nothing", func(t *testing.T, dir, path string) { must(t, os.Symlink(dir+"/absent", path)) }, "it is a symbolic link"},
		{"named pipe", func(t *testing.T, _, path string) { must(t, syscall.Mkfifo(path, 0o600)) },
			"it is a named pipe: expected a regular file; what reads along can have standard output"},
		{"named pipe with a reader", func(t *testing.T, _, path string) {
			must(t, syscall.Mkfifo(path, 0o600))
			reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
			must(t, err)
			t.Cleanup(func() { reader.Close() })
		}, "it is a named pipe"},
		{"device", func(t *testing.T, _, path string) { must(t, syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|7)) }, "it is a device"},
		{"disk", func(t *testing.T, _, path string) { must(t, syscall.Mknod(path, syscall.S_IFBLK|0o600, 7<<8|200)) }, "it is a device"},
		{"socket", func(t *testing.T, _, path string) {
			l, err := net.Listen("unix", path)
			must(t, err)
			t.Cleanup(func() { l.Close() })
		}, "it is a socket"},
		{"folder", func(t *testing.T, _, path string) { must(t, os.Mkdir(path, 0o700)) }, "it is a folder: name a file in it, such as "},
		{"another's file", func(t *testing.T, _, path string) {
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Chown(path, somebody, 0))
		}, "it belongs to user 65534, who could change what is written as user 0: remove it, or chown 0 "},
		{"a group's file", func(t *testing.T, _, path string) {
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Chmod(path, 0o660))
		}, "others may write to it (mode -rw-rw----): chmod go-w "},
		{"everybody's file", func(t *testing.T, _, path string) {
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Chmod(path, 0o602))
		}, "others may write to it (mode -rw-----w-)"},
		{"second name", func(t *testing.T, dir, path string) {
			must(t, os.WriteFile(dir+"/victim", []byte("kept\n"), 0o600))
			must(t, os.Link(dir+"/victim", path))
		}, "it is the same file as another name (2 hard links): name another"},
		{"everybody's folder", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o777)) },
			"DIR can be written to by others (mode drwxrwxrwx), who could put something else there: chmod go-w DIR, or choose another folder"},
		{"a group's folder", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o775)) }, "DIR can be written to by others"},
		{"another's folder", func(t *testing.T, dir, _ string) { must(t, os.Chown(dir, somebody, 0)) },
			"DIR belongs to user 65534, who could put something else there: choose a folder of user 0 or root"},
		{"another's folder that is sticky", func(t *testing.T, dir, _ string) {
			must(t, os.Chmod(dir, 0o777|fs.ModeSticky))
			must(t, os.Chown(dir, somebody, 0))
		}, "DIR belongs to user 65534"},
		{"everybody's folder above", func(t *testing.T, dir, _ string) { must(t, os.Chmod(filepath.Dir(dir), 0o777)) }, "ABOVE can be written to by others"},
		{"another's link in a sticky folder above", func(t *testing.T, dir, _ string) {
			must(t, os.Chmod(filepath.Dir(dir), 0o777|fs.ModeSticky))
			must(t, os.Rename(dir, dir+".real"))
			must(t, os.Symlink(dir+".real", dir))
			must(t, os.Lchown(dir, somebody, 0))
		}, "DIR is a link of user 65534, who can lead it elsewhere"},
		{"links in a circle", func(t *testing.T, dir, _ string) {
			must(t, os.Rename(dir, dir+".real"))
			must(t, os.Symlink(dir, dir))
		}, "DIR: too many levels of symbolic links"},
		{"no folder", func(t *testing.T, dir, _ string) { must(t, os.Remove(dir)) }, "there is no folder DIR (no such file or directory): make it first"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			path := filepath.Join(dir, "records.jsonl")
			must(t, os.Mkdir(dir, 0o755))
			tc.attack(t, dir, path)
			refused := make(chan error, 1)
			go func() {
				f, err := Open(path)
				if err == nil {
					f.Close()
				}
				refused <- err
			}()
			select {
			case err := <-refused:
				want := strings.NewReplacer("DIR", dir, "ABOVE", filepath.Dir(dir)).Replace(tc.want)
				var at *fs.PathError
				if !errors.As(err, &at) || at.Path != path || !strings.Contains(err.Error(), path+": "+want) {
					t.Errorf("got %v, want %q", err, want)
				}
				if err != nil && strings.ContainsRune(err.Error(), '\n') {
					t.Errorf("more than one line: %q", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("it hangs")
			}
			if kept, err := os.ReadFile(dir + "/victim"); err == nil && string(kept) != "kept\n" {
				t.Errorf("the victim has %q", kept)
			}
			if _, err := os.Lstat(dir + "/absent"); err == nil {
				t.Error("it made a file where the link leads to")
			}
		})
	}
}

// What is no attack works: a file that is not there, and one that is; a link that root
// or this user made above, as /var/run is; a folder for everybody that is sticky.
func TestOpens(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, dir, path string)
		mode    fs.FileMode
	}{
		{"new", func(*testing.T, string, string) {}, 0o640},
		{"there", func(t *testing.T, _, path string) { must(t, os.WriteFile(path, nil, 0o600)) }, 0o600},
		{"sticky folder", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o777|fs.ModeSticky)) }, 0o640},
		{"own link above", func(t *testing.T, dir, _ string) {
			must(t, os.Rename(dir, dir+".real"))
			must(t, os.Symlink("./../../"+filepath.Base(filepath.Dir(filepath.Dir(dir)))+"//"+filepath.Base(filepath.Dir(dir))+"/logs.real/", dir))
		}, 0o640},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			path := filepath.Join(dir, "records.jsonl")
			must(t, os.Mkdir(dir, 0o755))
			tc.prepare(t, dir, path)
			for range 2 {
				f, err := Open(path)
				must(t, err)
				_, err = f.WriteString("line\n")
				must(t, errors.Join(err, f.Close()))
			}
			content, err := os.ReadFile(path)
			info, statErr := os.Stat(path)
			must(t, errors.Join(err, statErr))
			if string(content) != "line\nline\n" || info.Mode().Perm()&^tc.mode != 0 {
				t.Errorf("%q, mode %v", content, info.Mode())
			}
		})
	}
}

// A file for packets is emptied, and nobody else reads one that is made.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "packets.pcapng")
	for _, content := range []string{"first, and long", "second"} {
		f, err := Create(path)
		must(t, err)
		_, err = f.WriteString(content)
		must(t, errors.Join(err, f.Close()))
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		must(t, errors.Join(err, statErr))
		if string(got) != content || info.Mode() != 0o600 {
			t.Errorf("%q, mode %v", got, info.Mode())
		}
	}
}

// A path may be relative, and what it says is of the folder that it is relative to.
func TestRelative(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	f, err := Open("records.jsonl")
	must(t, err)
	must(t, f.Close())
	must(t, os.Chmod(dir, 0o777))
	if _, err := Open("records.jsonl"); err == nil || !strings.Contains(err.Error(), "chmod go-w "+dir) {
		t.Error(err)
	}
}

// A file of the kernel's, by which it takes commands, is none to append records to, wherever
// it is mounted.
func TestFilesOfTheKernel(t *testing.T) {
	for path, is := range map[string]string{
		"/proc/sys/kernel/hostname": "proc", "/proc/self/comm": "proc", "/proc/self/new": "proc", "/sys/kernel/mm/ksm/run": "sysfs",
	} {
		before, _ := os.ReadFile(path) // /proc/self/new is none
		f, err := Open(path)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "it is a part of the kernel ("+is) {
			t.Errorf("%s: %v", path, err)
		}
		if after, _ := os.ReadFile(path); string(after) != string(before) {
			t.Errorf("%s: %q, was %q", path, after, before)
		}
	}
}

// One that is mounted over a file elsewhere is found, too.
func TestFileOfTheKernelMountedElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, syscall.Mount("/proc/sys/kernel/hostname", path, "", syscall.MS_BIND, ""))
	defer func() { must(t, syscall.Unmount(path, 0)) }()
	if f, err := Open(path); err == nil || !strings.Contains(err.Error(), "it is a part of the kernel (proc)") {
		t.Errorf("%v, %v", f, err)
	}
}
