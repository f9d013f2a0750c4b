package dnstrace

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// A record that is pushed while its output is flushed, and closed because it is blocked, is counted once, whether the output takes records or is
// blocked, and the queue is full.
func TestPushRacesWithFlush(t *testing.T) {
	const outputs, pushers = 24, 2
	var all sync.WaitGroup
	for n := range outputs {
		all.Go(func() {
			sink := newStuckSink()
			if n%2 == 0 {
				close(sink.let)
			} else {
				defer close(sink.let)
			}
			o := newOutput(outputConfig{kind: outputFile, path: fmt.Sprint(t.Name(), n)}, sink, 1+n/2)
			before := fateOf(t, o.config.String())
			var pushed [pushers]int
			var pushing sync.WaitGroup
			flushed := make(chan struct{})
			for p := range pushers {
				pushing.Go(func() {
					for {
						select {
						case <-flushed:
							return
						default:
							o.push(longRecord(1))
							pushed[p]++
						}
					}
				})
			}
			time.Sleep(2 * batchDelay) // now a blocked writer has records
			o.flush()
			close(flushed)
			pushing.Wait()
			o.flush()
			if f := fateOf(t, o.config.String()).since(before); int(f.all()) != pushed[0]+pushed[1] {
				t.Errorf("output %d: %v written and %v lost of %d", n, f.written, f.lost, pushed[0]+pushed[1])
			}
		})
	}
	all.Wait()
}
