package exchange

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// owed are finished exchanges whose responses may still come: of a query that was sent
// several times, or never answered. Another socket may have their port by then.
type owed struct {
	keys [256]key // the last of them, in a ring
	next int
}

func (o *owed) note(ex *open) {
	if ex.key.protocol != trace.TransportUDP || ex.responded && ex.sendings < 2 {
		return
	}
	o.add(ex.key)
	for _, k := range ex.clients {
		o.add(k)
	}
}

func (o *owed) add(k key) {
	o.keys[o.next] = k
	o.next = (o.next + 1) % len(o.keys)
}

func (o *owed) has(k key) bool {
	return slices.ContainsFunc(o.keys[:], func(of key) bool { return of.question == k.question && of == k })
}
