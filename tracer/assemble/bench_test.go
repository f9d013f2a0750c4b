package assemble

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// BenchmarkAssemble joins lookups at 10,000 a second of the records' own time and
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
		// cache. Some twenty overlap.
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
			const every = 100 * time.Microsecond
			a := New(Config{})
			var records [][]trace.Record
			made := 0
			done := 0
			for i := 0; b.Loop(); i++ {
				if i == made {
					// Making the records costs more than joining them.
					b.StopTimer()
					records = records[:0]
					for range 4096 {
						records = append(records, bc.lookup(made, time.Duration(made)*every))
						made++
					}
					b.StartTimer()
				}
				for _, r := range records[i%4096] {
					a.Add(r)
				}
				if i%50 == 0 { // the tracer polls every 5 ms
					done += len(a.Advance(epoch.Add(time.Duration(i) * every)))
				}
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
