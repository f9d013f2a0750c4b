package exchange

import (
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// stuck returns until when a retransmitted datagram may still be dropped where it waits, as
// for the link address of a removed endpoint: that explains the retransmission. 0: all
// reached a socket, or were dropped.
func (ex *open) stuck() int64 {
	if ex.sendings < 2 || ex.key.protocol != trace.TransportUDP {
		return 0
	}
	server, known := uint32(0), false
	if i := ex.firstOf(inResponse); i >= 0 && ex.marks[i].kind == capture.TX {
		server, known = ex.marks[i].netns, true
	}
	var until int64
	for i := range ex.marks {
		m := &ex.marks[i]
		if j := &ex.journeys[m.journey]; !m.is(inResponse) && !j.dropped && j.last < ex.lastQuery && ex.goesNoFurther(i) && m.kind < capture.Delivered &&
			(m.kind == capture.TX || !known || m.netns != server) {
			until = max(until, j.last+int64(neighbourWait))
		}
	}
	return until
}

// goesNoFurther tells whether a sighting is the last of its journey.
func (ex *open) goesNoFurther(i int) bool {
	for _, m := range ex.marks[i+1:] {
		if m.journey == ex.marks[i].journey {
			return false
		}
	}
	return true
}
