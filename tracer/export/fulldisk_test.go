package export

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// disk takes so many bytes, until it is freed.
type disk struct {
	mu      sync.Mutex
	room    int
	content bytes.Buffer
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(d.room, len(b))
	d.room -= n
	d.content.Write(b[:n])
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *disk) Close() error { return nil }

// A disk that fills up and is freed again costs the records that did not fit, each
// counted; none of those that came before or after is harmed.
func TestFullDisk(t *testing.T) {
	const line = `{"n":0}`
	for cut := range 3*(len(line)+1) + 1 {
		d := &disk{room: cut}
		w := newWriter("file:x", &stream{to: d})
		write := func(n int) {
			block := block{records: uint64(n), lines: []byte(strings.Repeat(line+"\n", n))}
			w.writeOut(block)
		}
		write(3)
		d.room = 1 << 20
		write(2)
		if err := w.Close(); (err == nil) != (cut == 3*(len(line)+1)) {
			t.Errorf("%d bytes: closed with %v", cut, err)
		}
		whole := 0
		for l := range strings.Lines(d.content.String()) {
			if l == line+"\n" {
				whole++
			}
		}
		written, dropped := w.Stats()
		if int(written) != whole || written+dropped != 5 || whole != min(cut+1, 3*(len(line)+1))/(len(line)+1)+2 {
			t.Errorf("%d bytes: %d whole lines, written %d, dropped %d:\n%s", cut, whole, written, dropped, d.content.String())
		}
	}
}

// What a killed tracer left in the middle of a line does not take the first record
// of the next one with it.
func TestFileThatEndsTorn(t *testing.T) {
	for before, want := range map[string]string{"": "", "{\"n\":1}\n": "{\"n\":1}\n", "{\"n\":1}\n{\"n\"": "{\"n\":1}\n{\"n\"\n"} {
		path := filepath.Join(t.TempDir(), "records.jsonl")
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Open("file:"+path, ignore)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("{}"))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want+"{}\n" {
			t.Errorf("%q, %v; expected %q", got, err, want+"{}\n")
		}
	}
}
