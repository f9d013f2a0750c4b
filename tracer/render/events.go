package render

import (
	"cmp"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// event is what happened to a packet where its way ended: exactly one of drop,
// rejected and reset is set.
type event struct {
	at       trace.Seconds
	drop     *trace.Drop
	rejected *trace.Rejection
	reset    *trace.Reset
	message  string
}

// events returns those of an exchange in order of time.
func events(e *trace.Exchange) []event {
	var all []event
	for i := range e.Drops {
		d := &e.Drops[i]
		all = append(all, event{at: d.Offset, drop: d, message: d.Message})
	}
	for i := range e.Rejected {
		r := &e.Rejected[i]
		all = append(all, event{at: r.Offset, rejected: r, message: trace.MessageResponse})
	}
	if r := e.Reset; r != nil {
		x := event{at: r.Offset, reset: r, message: trace.MessageResponse}
		if r.Src.Addr() == e.ClientIP && r.Src.Port() == e.ClientPort {
			x.message = trace.MessageQuery
		}
		all = append(all, x)
	}
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return all
}

func (x event) step(base time.Duration) step {
	at := base + x.at.Duration()
	return step{message: x.message, from: at, to: at, event: &x}
}

// event marks where a packet ended.
func (s *story) event(depth int, st *step) {
	switch x := st.event; {
	case x.drop != nil:
		s.drop(depth, st.from, x.drop)
	case x.rejected != nil:
		s.rejected(depth, st.from, x.rejected)
	case x.reset != nil:
		s.add(row{depth: depth, label: "✗ RST from " + x.reset.Src.String(), tone: bad, mark: markDrop, from: st.from, to: st.from})
	}
}

func (s *story) drop(depth int, at time.Duration, d *trace.Drop) {
	device := ""
	if d.IfName != "" {
		device = " at " + d.IfName
	}
	s.add(row{depth: depth, label: "✗ DROPPED in " + s.places.of(d.Place()) + device, tone: bad, mark: markDrop, from: at, to: at})
	reason := d.Reason
	if reason == "" {
		reason = "the kernel gives no reason"
	}
	if d.BPF != "" {
		s.note(depth+1, bad, "by an eBPF program: %s", d.BPF)
	}
	if d.Words != "" {
		s.note(depth+1, bad, "%s", d.Words)
	}
	s.note(depth+1, bad, "%s in %s, %s", reason, d.Where, s.places.describe(d.Place(), d.NetNSName))
}

func (s *story) rejected(depth int, at time.Duration, r *trace.Rejection) {
	s.add(row{depth: depth, label: "✗ REJECTED: " + whyRejected(r.Why), tone: bad, mark: markDrop, from: at, to: at})
	code := ""
	if r.RCode != "" {
		code = r.RCode + ", "
	}
	s.note(depth+1, bad, "a response from %s (%s%d bytes) that its receiver could not take", r.Src, code, r.Size)
}

// whyRejected says in few words why a response could not be taken.
func whyRejected(why string) string {
	switch why {
	case trace.RejectedID:
		return "another DNS ID"
	case trace.RejectedQuestion:
		return "another question"
	case trace.RejectedAddress:
		return "from another address"
	case trace.RejectedPort:
		return "from another port"
	case trace.RejectedMalformed:
		return "no DNS message"
	case trace.RejectedIncomplete:
		return "cut short"
	}
	return why
}
