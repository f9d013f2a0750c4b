package export

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A path at which another put something is refused at once, with the path and what to
// do. Package recordfile tries all that can stand there.
func TestFileThatOthersPrepared(t *testing.T) {
	dir := t.TempDir()
	pipe, link, victim := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "victim")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(victim, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{pipe: "it is a named pipe: expected a regular file", link: "it is a symbolic link"} {
		refused := make(chan error, 1)
		go func() {
			w, err := Open("file:"+path, ignore)
			if err == nil {
				w.Write(record())
				_ = w.Close()
			}
			refused <- err
		}()
		select {
		case err := <-refused:
			if err == nil || !strings.Contains(err.Error(), "output: append to "+path+": "+want) {
				t.Errorf("%v", err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: it hangs", path)
		}
	}
	if kept, err := os.ReadFile(victim); err != nil || string(kept) != "kept" {
		t.Errorf("%q, %v", kept, err)
	}
}
