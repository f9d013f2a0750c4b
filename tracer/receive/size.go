package receive

import (
	"unsafe"

	"github.com/dnstrace/dnstrace/trace"
)

// sizeOf returns the memory that a record takes, about.
func sizeOf(rec trace.Record) int64 {
	switch r := rec.(type) {
	case *trace.Query:
		return int64(unsafe.Sizeof(*r)) + sizeOfDNS(&r.DNS) + int64(len(r.Zone)+len(r.Error)) + sizeOfSpans(r.Hops, r.Upstreams)
	case *trace.Refresh:
		return int64(unsafe.Sizeof(*r)) + sizeOfDNS(&r.DNS) + sizeOfSpans(r.Hops, r.Upstreams)
	}
	return 0
}

func sizeOfDNS(d *trace.DNS) int64 { return int64(len(d.QName)) + 64 } // 64: the numbers that it points to

func sizeOfSpans(hops []trace.Hop, attempts []trace.Attempt) int64 {
	n := cap(hops)*int(unsafe.Sizeof(trace.Hop{})) + cap(attempts)*int(unsafe.Sizeof(trace.Attempt{}))
	for i := range hops {
		n += len(hops[i].Plugin) + 16
	}
	for i := range attempts {
		at := &attempts[i]
		n += len(at.Address) + len(at.Error) + len(at.Plugin) + len(at.QName) + 16
	}
	return int64(n)
}
