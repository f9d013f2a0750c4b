package source

import (
	"io"
	"runtime"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// recordStream gives the records of lookups, one after the other, up to a size.
type recordStream struct {
	left, n int
	pending []byte
}

func (s *recordStream) Read(b []byte) (int, error) {
	if len(s.pending) == 0 {
		if s.left <= 0 {
			return 0, io.EOF
		}
		s.n++
		l := lookup(s.n)
		for _, r := range []trace.Record{l.upstream, l.server, l.client, l.query} {
			s.pending = append(r.AppendJSON(s.pending), '\n')
		}
		s.left -= len(s.pending)
	}
	n := copy(b, s.pending)
	s.pending = s.pending[n:]
	return n, nil
}

// heldWhileReading returns how many lookups a stream of that size makes, and the
// largest heap on the way.
func heldWhileReading(t testing.TB, size, memory int) (lookups int, heap uint64) {
	t.Helper()
	f := File{Path: "-", Stdin: &recordStream{left: size}, Stderr: t.Output(), Joining: realJoining()}
	f.memory = memory
	if _, err := f.Each(t.Context(), Request{}, func(Lookup) error {
		if lookups++; lookups%500 == 1 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap = max(heap, m.HeapAlloc)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lookups, heap
}

// A larger file takes no more memory, but for the buffers from which its sorted
// parts are merged: 64 KB for each part.
func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	const size, memory = 2 << 20, 1 << 20
	few, small := heldWhileReading(t, size, memory)
	many, large := heldWhileReading(t, 4*size, memory)
	if many < 3*few || large > small+3*size/10 {
		t.Errorf("%d lookups: %d KB; %d lookups: %d KB", few, small>>10, many, large>>10)
	}
}

func BenchmarkFile(b *testing.B) {
	const size = 100 << 20
	b.SetBytes(size)
	for b.Loop() {
		lookups, heap := heldWhileReading(b, size, 0)
		b.ReportMetric(float64(lookups), "lookups")
		b.ReportMetric(float64(heap>>20), "MB-heap")
	}
}
