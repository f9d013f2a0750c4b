package dnstrace

import (
	"testing"
	"time"
)

// A record that comes while CoreDNS ends is written at once; when another user of the output
// stays, or when the output takes nothing, records come in batches again.
func TestHurry(t *testing.T) {
	for _, tc := range []struct {
		name string
		with func(q *queue)
		want bool
	}{
		{"ends", (*queue).hurry, true},
		{"another user stays", func(q *queue) { q.hurry(); q.relax() }, false},
		{"waited for what is left since", func(q *queue) { q.hurry(); q.relax(); q.drain(time.Millisecond) }, false},
		{"the output is blocked", func(q *queue) { q.hurry(); q.push(new(record)) }, false},
	} {
		q := newQueue(10, func(cause string) { t.Errorf("%s: lost: %s", tc.name, cause) })
		tc.with(q)
		if q.hurried != tc.want {
			t.Errorf("%s: hurried %t, want %t", tc.name, q.hurried, tc.want)
		}
	}
}
