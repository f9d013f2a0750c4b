package assemble

import (
	"unsafe"

	"github.com/dnstrace/dnstrace/trace"
)

// What a lookup takes beside its records, with its entries in the indexes; and what a
// record takes beside what is counted, as for the addresses in it. Measured:
// BenchmarkAssemble tells the bytes of a lookup.
const (
	ownSize      = int(unsafe.Sizeof(lookup{})) + int(unsafe.Sizeof(asked{})) + 256
	slotSize     = int(unsafe.Sizeof(slot{})) + 128
	exchangeSize = int(unsafe.Sizeof(trace.Exchange{})) + 128
	querySize    = int(unsafe.Sizeof(trace.Query{})) + 64
)

// bytes returns how much memory a lookup takes, about.
func (l *lookup) bytes() int {
	n := ownSize + len(l.slots)*slotSize
	for _, ex := range [...]*trace.Exchange{l.exchange, l.serverExchange} {
		if ex != nil {
			n += exchangeSize + ex.Path.Size() + 2*len(ex.QName) + len(ex.Drops)*int(unsafe.Sizeof(trace.Drop{})) +
				len(ex.Answers)*int(unsafe.Sizeof(trace.Answer{})) + len(ex.Rejected)*int(unsafe.Sizeof(trace.Rejection{}))
		}
	}
	for _, q := range l.records {
		n += sizeOf(q)
	}
	if l.claim != nil {
		n += sizeOf(l.claim)
	}
	if r := l.refresh; r != nil {
		n += querySize + len(r.QName) + sizeOfSpans(r.Hops, r.Upstreams)
	}
	return n
}

func sizeOf(q *trace.Query) int {
	return querySize + len(q.QName) + len(q.Zone) + len(q.Error) + sizeOfSpans(q.Hops, q.Upstreams)
}

func sizeOfSpans(hops []trace.Hop, attempts []trace.Attempt) int {
	n := cap(hops)*int(unsafe.Sizeof(trace.Hop{})) + cap(attempts)*int(unsafe.Sizeof(trace.Attempt{}))
	for i := range hops {
		n += len(hops[i].Plugin)
	}
	for i := range attempts {
		n += len(attempts[i].Address) + len(attempts[i].Error) + len(attempts[i].QName)
	}
	return n
}
