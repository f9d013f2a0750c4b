package dnstrace

import (
	"testing"
	"testing/synctest"
)

// A record that comes while CoreDNS ends is written at once; when the output takes nothing, records
// come in batches again, since one wait is enough.
func TestEnding(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sink := newStuckSink()
			o := newOutput(outputConfig{kind: outputFile, path: t.Name()}, sink, 10)
			o.flush()
			if !stuck {
				close(sink.let)
			}
			before := fateOf(t, o.config.String())
			o.push(longRecord(1))
			if f := fateOf(t, o.config.String()).since(before); o.ending.Load() == stuck || f.written == 1 == stuck {
				t.Errorf("stuck %t: ending %t, written %v", stuck, o.ending.Load(), f.written)
			}
			if stuck {
				close(sink.let)
			}
			o.close()
		})
	}
}
