package assemble

import (
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// maxTruncated bounds the truncated answers that are remembered, and the attempts to connect:
// some milliseconds after one its client asks again, and that one is all that is looked for.
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
	if len(c.truncated) >= maxTruncated {
		c.truncated = slices.Delete(c.truncated, 0, maxTruncated/2)
	}
	answer := truncatedOf(ex)
	answer.caller = key
	c.truncated = append(c.truncated, answer)
}

// noteAttempt remembers an attempt to connect.
func (c *calls) noteAttempt(ex *trace.Exchange) {
	if len(c.attempts) >= maxTruncated {
		c.attempts = slices.Delete(c.attempts, 0, maxTruncated/2)
	}
	c.attempts = append(c.attempts, ex)
}

func truncatedOf(ex *trace.Exchange) truncated {
	at := ex.Time.UnixNano()
	answer := truncated{id: ex.TraceID, asker: askerOf(ex), pid: pidOf(ex), start: at, end: at}
	if ex.Duration != nil {
		answer.end += int64(*ex.Duration)
	}
	return answer
}

func pidOf(ex *trace.Exchange) int {
	if ex.Client == nil {
		return 0
	}
	return ex.Client.PID
}

// truncatedBefore returns the call that an attempt to connect goes on with, and lookups of
// it: those that the same client had a truncated answer to, from the same server, just
// before. Where there are several they have to be of one call.
func (c *calls) truncatedBefore(ex *trace.Exchange) (call trace.TraceID, before []*asking) {
	if !ex.Connects() {
		return call, nil
	}
	for i := range c.truncated {
		answer := &c.truncated[i]
		if !answer.goesOnWith(ex) {
			continue
		}
		a := c.lookupOf(answer)
		if a == nil {
			return call, nil
		}
		id := c.callOf(answer)
		if len(before) > 0 && id != call {
			return call, nil // after which of the two?
		}
		before, call = append(before, a), id
	}
	return call, before
}

// goesOnWith tells whether the client of a truncated answer may have begun an attempt to
// connect because of it.
func (answer *truncated) goesOnWith(ex *trace.Exchange) bool {
	pid, since := pidOf(ex), ex.Time.UnixNano()-answer.end
	other := pid != 0 && answer.pid != 0 && pid != answer.pid
	return answer.asker == askerOf(ex) && !other && since >= 0 && since <= goesOn
}

// lookupOf returns the lookup of a truncated answer; nil if it is forgotten.
func (c *calls) lookupOf(answer *truncated) *asking {
	r := c.byCaller[answer.caller]
	if r == nil {
		return nil
	}
	if i := r.at(answer.start, answer.id); i >= 0 {
		return &r.list[i]
	}
	return nil
}

// callOf returns what the call of a truncated answer that is remembered is named.
func (c *calls) callOf(answer *truncated) trace.TraceID {
	r := c.byCaller[answer.caller]
	list, i := cluster(r.list, r.at(answer.start, answer.id))
	group(list)
	id, _ := nameOf(list, i)
	return id
}

// connectsAfter returns the call of a truncated answer that its client goes on with over
// TCP: it is under way to connect, or tried in vain.
func (c *calls) connectsAfter(ex *trace.Exchange, self *asking, kin []*trace.Exchange) (call trace.TraceID, ok bool) {
	if !ex.Truncated {
		return call, false
	}
	for _, attempts := range [][]*trace.Exchange{c.attempts, kin} {
		for _, attempt := range attempts {
			if call, before := c.truncatedBefore(attempt); slices.Contains(before, self) {
				return call, true
			}
		}
	}
	return call, false
}
