package dnstrace

import (
	"testing"
	"testing/synctest"
	"time"
)

// A record that comes while CoreDNS ends is written at once. An output that takes nothing is closed: one wait is
// enough.
func TestEnding(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sink := newStuckSink()
			o := newOutput(outputConfig{kind: outputFile, path: t.Name()}, sink, 10)
			o.end()
			if !stuck {
				close(sink.let)
			}
			before := fateOf(t, o.config.String())
			o.push(longRecord(1))
			if f := fateOf(t, o.config.String()).since(before); o.closed != stuck || f.written == 1 == stuck || f.lost[causeClosed] == 1 != stuck {
				t.Errorf("stuck %t: closed %t, written %v, lost %v", stuck, o.closed, f.written, f.lost)
			}
			if stuck {
				close(sink.let)
			}
			time.Sleep(2 * batchDelay) // the writer ends
		})
	}
}
