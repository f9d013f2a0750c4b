package assemble

import (
	"encoding/binary"
	"iter"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/chain"
)

// flows finds lookups by their flow.
type flows struct{ chain.Table[lookup] }

func newFlows() flows {
	return flows{chain.New(func(l *lookup) *chain.Links[lookup] { return &l.sameFlow })}
}

// hashOfFlow returns a part of a flow, which is a hash itself.
func hashOfFlow(flow *trace.Flow) uint64 { return binary.NativeEndian.Uint64(flow[:]) }

// maxOfFlow bounds the lookups of one flow that are looked at: a client uses its port and ID
// again after a while, and may ask several servers with them. A client that asks ever new
// ones so must not have each compared with all.
const maxOfFlow = 64

// of yields the lookups with a flow, those first that were added first; of more than
// maxOfFlow the newest. The one that it yielded may be removed; once others are, it must not
// go on.
func (f *flows) of(flow trace.Flow) iter.Seq[*lookup] {
	return func(yield func(*lookup) bool) {
		var found [maxOfFlow]*lookup
		n := 0
		for l := f.First(hashOfFlow(&flow)); l != nil && n < maxOfFlow; l = f.Next(l) {
			if l.flow == flow {
				found[n] = l
				n++
			}
		}
		for n > 0 {
			if n--; !yield(found[n]) {
				return
			}
		}
	}
}

func (f *flows) add(l *lookup) { f.Join(hashOfFlow(&l.flow), l) }
