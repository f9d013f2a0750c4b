package linesort

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
)

// Whatever fits into memory, one line at a time or all, the order is that of the
// keys, and of coming where they are equal. Of 5,000 runs some are merged twice.
func TestOrder(t *testing.T) {
	const n = 5000
	for _, memory := range []int{1, 300, 10_000, 1 << 20} {
		rng := rand.New(rand.NewPCG(1, 2))
		s := New(memory)
		for i := range n {
			k := Key{Major: rng.Int64N(9) - 4, Minor: rng.Int64N(9) - 4}
			if err := s.Add(k, fmt.Appendf(nil, "%d %d %04d", k.Major+4, k.Minor+4, i)); err != nil {
				t.Fatal(err)
			}
		}
		last, count := "", 0
		if err := s.Each(func(k Key, line []byte) error {
			if string(line) <= last || !strings.HasPrefix(string(line), fmt.Sprintf("%d %d ", k.Major+4, k.Minor+4)) {
				t.Fatalf("memory %d: %q with %v after %q", memory, line, k, last)
			}
			last = string(line)
			count++
			return nil
		}); err != nil || count != n {
			t.Errorf("memory %d: %d of %d lines, %v", memory, count, n, err)
		}
		s.Close()
	}
}

func TestErrorOfUseEndsIt(t *testing.T) {
	s := New(100)
	defer s.Close()
	for range 100 {
		if err := s.Add(Key{}, []byte("line")); err != nil {
			t.Fatal(err)
		}
	}
	enough, n := errors.New("enough"), 0
	err := s.Each(func(Key, []byte) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 3 {
		t.Errorf("%v after %d lines", err, n)
	}
}

// A folder that cannot be written to is named by the remedy.
func TestNowhereToSpill(t *testing.T) {
	t.Setenv("TMPDIR", "/proc/dnstrace")
	s := New(1)
	defer s.Close()
	if err := s.Add(Key{}, []byte("fits")); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(Key{}, []byte("does not")); err == nil || !strings.Contains(err.Error(), "TMPDIR names a folder") {
		t.Error(err)
	}
}

// Nothing is left behind under a name, not even while lines are sorted.
func TestFilesHaveNoName(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := New(1)
	defer s.Close()
	for range 200 {
		if err := s.Add(Key{}, []byte("line")); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}

// held returns the largest heap while size bytes are sorted.
func held(t *testing.T, size int) uint64 {
	t.Helper()
	s := New(64 << 10)
	defer s.Close()
	line := make([]byte, 1000)
	var largest uint64
	measure := func(n int) {
		if n%1000 == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			largest = max(largest, m.HeapAlloc)
		}
	}
	for n := range size / len(line) {
		measure(n)
		if err := s.Add(Key{Major: int64(n * 7919 % 10007)}, line); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	if err := s.Each(func(Key, []byte) error {
		measure(n)
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return largest
}

// Ten times as many lines take no more memory, but for the buffers of a level more.
func TestMemoryIsConstant(t *testing.T) {
	small, large := held(t, 4<<20), held(t, 40<<20)
	if large > small+2*maxRuns*readBuffer {
		t.Errorf("4 MB take %d KB, 40 MB %d KB", small>>10, large>>10)
	}
}
