package assemble

import (
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// maxTruncated bounds the truncated answers that are remembered: some milliseconds
// after one its client asks again, and that one is all that is looked for.
const maxTruncated = 64

// truncated is an answer that did not fit, after which its client opens a
// connection.
type truncated struct {
	caller     caller
	id         trace.TraceID
	asker      asker
	pid        int // 0: unknown
	start, end int64
}

// asker is who asks whom.
type asker struct {
	place  trace.Place
	client netip.Addr
	server netip.AddrPort
}

func askerOf(ex *trace.Exchange) asker {
	a := asker{client: ex.ClientIP, server: netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)}
	a.place, _ = ex.ClientPlace()
	return a
}

func (c *calls) noteTruncated(ex *trace.Exchange, key caller) {
	if len(c.cut) >= maxTruncated {
		c.cut = slices.Delete(c.cut, 0, maxTruncated/2)
	}
	at := ex.Time.UnixNano()
	cut := truncated{caller: key, id: ex.TraceID, asker: askerOf(ex), pid: pidOf(ex), start: at, end: at}
	if ex.Duration != nil {
		cut.end += int64(*ex.Duration)
	}
	c.cut = append(c.cut, cut)
}

func pidOf(ex *trace.Exchange) int {
	if ex.Client == nil {
		return 0
	}
	return ex.Client.PID
}

// truncatedBefore returns the call that an attempt to connect goes on with: that
// of the one truncated answer that the same client had from the same server just
// before.
func (c *calls) truncatedBefore(ex *trace.Exchange) (call trace.TraceID, found bool) {
	if !ex.Connects() {
		return call, false
	}
	at, who, pid := ex.Time.UnixNano(), askerOf(ex), pidOf(ex)
	for i := range c.cut {
		cut := &c.cut[i]
		since := time.Duration(at - cut.end)
		other := pid != 0 && cut.pid != 0 && pid != cut.pid
		if cut.asker != who || other || since < 0 || since > time.Duration(goesOn) {
			continue
		}
		if found {
			return call, false // after which of the two?
		}
		call, found = c.nameOf(cut), true
	}
	return call, found
}

// nameOf returns what the call of a truncated answer was named.
func (c *calls) nameOf(cut *truncated) trace.TraceID {
	if r := c.byCaller[cut.caller]; r != nil {
		for i := range r.list {
			if a := &r.list[i]; a.start == cut.start && a.id == cut.id && !a.told.IsZero() {
				return a.told
			}
		}
	}
	return cut.id
}
