package source

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// endless is a line that never ends.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// A file that nobody writes to, or one line of which never ends: reading it ends when its
// context does.
func TestStopAtWhatNeverEnds(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	silent, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer w.Close()
	for name, f := range map[string]File{
		"a pipe that nobody opens": {Path: pipe},
		"a pipe that stays silent": {Path: "-", Stdin: silent},
		"a line without an end":    {Path: "-", Stdin: endless{}},
		"a device without an end":  {Path: "/dev/zero"},
	} {
		for _, follow := range []bool{false, true} {
			f.Stderr, f.Joining = io.Discard, Joining{Now: time.Now, Assemble: func() Assembler { return &assembler{} }}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				_, _ = f.Each(ctx, Request{Follow: follow}, func(Lookup) error { return nil }) // that it ends is what matters
				close(done)
			}()
			time.AfterFunc(50*time.Millisecond, cancel) // it reads by then
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Errorf("%s: it goes on", name)
			}
		}
	}
	// Lets go of the first.
	if fd, err := syscall.Open(pipe, syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
		_ = syscall.Close(fd)
	}
}
