package export

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

func record() []byte {
	t := &trace.Trace{QName: "example.com.", QType: "A", Outcome: trace.OutcomeUnanswered}
	t.Time = time.Unix(1, 0)
	t.TraceID = trace.TraceID{1}
	t.Flow = trace.Flow{1}
	return t.AppendJSON(nil)
}

func TestFileIsAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	for range 2 {
		w, err := Open("file:"+path, ignore)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(record())
		w.Flush()
		w.Write(record())
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if written, dropped := w.Stats(); written != 2 || dropped != 0 {
			t.Errorf("written %d, dropped %d", written, dropped)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := trace.NewReader(f)
	for n := 0; ; n++ {
		if _, _, err := r.Read(); errors.Is(err, io.EOF) {
			if n != 4 {
				t.Errorf("%d records, expected 4", n)
			}
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"":                    "expected stdout, file:PATH or otlp:URL",
		"file:":               "expected stdout, file:PATH or otlp:URL",
		"file:" + t.TempDir(): "it is a folder",
	} {
		if _, err := Open(spec, ignore); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// blocked is an output that takes nothing until it is released.
type blocked struct {
	sync.Mutex
	bytes int
}

func (b *blocked) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	b.bytes += len(p)
	return len(p), nil
}

func (b *blocked) Close() error { return nil }

// An output that blocks holds nobody up, and what it loses is counted.
func TestBlockedOutputDropsAndCounts(t *testing.T) {
	out := &blocked{}
	out.Lock()
	w := newWriter("test", &stream{to: out})
	line := len(record()) + 1
	total := uint64(3 * maxBlocks * blockBytes / line)
	for range total {
		w.Write(record())
		w.Flush()
	}
	_, dropped := w.Stats()
	if n := w.Queued(); n == 0 {
		t.Error("nothing waits")
	}
	out.Unlock()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := w.Queued(); n != 0 {
		t.Errorf("%d records wait after the end", n)
	}
	written, after := w.Stats()
	if dropped == 0 || after != dropped || written+dropped != total || out.bytes != int(written)*line {
		t.Errorf("of %d: written %d, dropped %d, then %d; %d bytes", total, written, dropped, after, out.bytes)
	}
}

// At the end the output is waited for: what is left is more than the bound.
func TestLastRecordsWaitForRoom(t *testing.T) {
	out := &blocked{}
	out.Lock()
	w := newWriter("test", &stream{to: out})
	w.Last(time.Minute)
	time.AfterFunc(10*time.Millisecond, out.Unlock)
	total := uint64(3 * maxBlocks * blockBytes / (len(record()) + 1))
	for range total {
		w.Write(record())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if written, dropped := w.Stats(); written != total || dropped != 0 {
		t.Errorf("of %d: written %d, dropped %d", total, written, dropped)
	}
}

// But not for ever.
func TestLastRecordsDoNotWaitForEver(t *testing.T) {
	out := &blocked{}
	out.Lock()
	w := newWriter("test", &stream{to: out})
	w.Last(time.Millisecond)
	for range 3 * maxBlocks * blockBytes / (len(record()) + 1) {
		w.Write(record())
	}
	out.Unlock()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, dropped := w.Stats(); dropped == 0 {
		t.Error("nothing was dropped")
	}
}

// Nor does the end wait for an output that takes nothing.
func TestCloseDoesNotWaitForEver(t *testing.T) {
	out := &blocked{}
	out.Lock()
	defer out.Unlock()
	w := newWriter("stdout", &stream{to: out})
	w.patient = time.Millisecond
	w.Write(record())
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "stdout: nobody took the last records") {
		t.Errorf("%v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
func (full) Close() error              { return nil }

func TestFailedOutputIsReported(t *testing.T) {
	w := newWriter("file:/full", &stream{to: full{}})
	w.Write(record())
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "/full: no space left") {
		t.Errorf("%v", err)
	}
	if written, dropped := w.Stats(); written != 0 || dropped != 1 {
		t.Errorf("written %d, dropped %d", written, dropped)
	}
}

func ignore(error) {}
