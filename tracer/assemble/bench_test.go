package assemble

import (
	"fmt"
	"runtime"
	"strings"
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
		// The upstream is silent, and each lookup asks it twice: thousands are open.
		{"silent", func(i int, start time.Duration) []trace.Record {
			return silent(fmt.Sprintf("n%d.example.", i), uint16(3*i), 100*start)
		}},
		{"hot-silent", func(i int, start time.Duration) []trace.Record {
			return silent("hot.example.", uint16(3*i), 100*start)
		}},
		// One name without records of the server.
		{"hot-miss-alone", func(i int, start time.Duration) []trace.Record {
			records := miss("hot.example.", uint16(2*i), start)
			return []trace.Record{records[0], records[2]}
		}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			const every = 100 * time.Microsecond
			a := New(Config{})
			slow := strings.Contains(bc.name, "silent") // 100 a second, which are open for 9 s
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
					now := time.Duration(i) * every
					if slow {
						now *= 100
					}
					done += len(a.Advance(epoch.Add(now)))
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
			b.ReportMetric(held(a), "B/lookup")
		})
	}
}

// silent makes the records of a lookup whose upstream is silent.
func silent(name string, port uint16, start time.Duration) []trace.Record {
	const us = time.Microsecond
	ex := fromClient(name, port, start, 4*sec+ms)
	return []trace.Record{ex, record(ex, 20*us, 4*sec, attempt(1, 100*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+110*us, 2*sec, trace.OutcomeTimeout)),
		toUpstream(name, port+1, start+200*us, 0), toUpstream(name, port+2, start+2*sec+180*us, 0)}
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
