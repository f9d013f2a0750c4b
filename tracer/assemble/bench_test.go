package assemble

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// BenchmarkAssemble joins lookups at 5,000 a second of the records' own time and
// prints how many it joins in a second, and what each costs in memory while it
// is held: `go test -run - -bench Assemble -cpu 1 ./tracer/assemble`.
func BenchmarkAssemble(b *testing.B) {
	for _, bc := range []struct {
		name   string
		lookup func(i int, start time.Duration) []trace.Record
	}{
		// Every name is another, and goes upstream.
		{"unique", func(i int, start time.Duration) []trace.Record {
			return miss(fmt.Sprintf("n%d.example.", i), uint16(2*i), start)
		}},
		// One name that everybody asks for, from the cache.
		{"hot", func(i int, start time.Duration) []trace.Record {
			ex := fromClient("hot.example.", uint16(i), start, 200*time.Microsecond)
			return []trace.Record{record(ex, 20*time.Microsecond, 100*time.Microsecond), ex}
		}},
		// One name that everybody asks for, and every lookup goes upstream: no
		// cache. Two upstream exchanges overlap and cannot be told apart.
		{"hot-miss", func(i int, start time.Duration) []trace.Record {
			return miss("hot.example.", uint16(2*i), start)
		}},
		// The same without records of the server.
		{"hot-miss-alone", func(i int, start time.Duration) []trace.Record {
			records := miss("hot.example.", uint16(2*i), start)
			return []trace.Record{records[0], records[2]}
		}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			const every = 200 * time.Microsecond
			a := New(Config{})
			i, done := 0, 0
			step := func() {
				start := time.Duration(i) * every
				for _, r := range bc.lookup(i, start) {
					a.Add(r)
				}
				if i%25 == 0 { // the tracer polls every 5 ms
					done += len(a.Advance(epoch.Add(start)))
				}
				i++
			}
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
			b.ReportMetric(held(a), "B/lookup")
		})
	}
}

// held is what an assembler keeps in memory for a lookup, with its records.
func held(a *Assembler) float64 {
	n := max(a.Stats().Pending, 1)
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	runtime.KeepAlive(a)
	*a = Assembler{}
	runtime.GC()
	runtime.ReadMemStats(&without)
	return float64(with.HeapAlloc-without.HeapAlloc) / float64(n)
}
