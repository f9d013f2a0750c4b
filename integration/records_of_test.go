//go:build loki || otlp

package integration

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// recordsOf waits for n records of a name in a file, and returns what change makes
// of them, nil for as they are; those of which it makes nothing are left out.
func (r *rig) recordsOf(name, path string, n int, change func(*trace.Exchange) *trace.Exchange) []trace.Record {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var found []trace.Record
		for _, rec := range readRecords(r.t, path) {
			if q, ok := questionOf(rec); ok && q == name {
				found = append(found, rec)
			}
		}
		if len(found) >= n {
			var changed []trace.Record
			for _, rec := range found {
				ex, ok := rec.(*trace.Exchange)
				if ok && change != nil {
					if ex = change(ex); ex != nil {
						changed = append(changed, ex)
					}
					continue
				}
				changed = append(changed, rec)
			}
			return changed
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: %d records of %s, expected %d\n%s", path, len(found), name, n, r.Outputs())
		}
	}
}
