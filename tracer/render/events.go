package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// event is what happened to a packet where its way ended, or an error about it: exactly one
// of drop, rejected, reset and icmp is set.
type event struct {
	at       trace.Seconds
	drop     *trace.Drop
	rejected *trace.Rejection
	reset    *trace.Reset
	icmp     *trace.ICMP
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
	if x := e.ICMP; x != nil {
		all = append(all, event{at: x.Offset, icmp: x, message: trace.MessageResponse})
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
	case x.icmp != nil:
		s.icmpError(depth, st.from, x.icmp)
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
	if d.Description != "" {
		s.note(depth+1, bad, "%s", d.Description)
	}
	s.note(depth+1, bad, "%s in %s, %s", reason, d.Where, s.places.describe(d.Place(), d.NetNSName))
}

// heldFor says what a packet waited for that the kernel kept for a while before it dropped it.
func heldFor(d *trace.Drop) string {
	if strings.HasPrefix(d.Reason, "NEIGH_") {
		return "no answer to ARP or ND"
	}
	return "held, until it was dropped"
}

func (s *story) rejected(depth int, at time.Duration, r *trace.Rejection) {
	s.add(row{depth: depth, label: "✗ REJECTED: " + whyRejected(r.Why), tone: bad, mark: markDrop, from: at, to: at})
	code := ""
	if r.RCode != "" {
		code = r.RCode + ", "
	}
	s.note(depth+1, bad, "a response from %s (%s%d bytes) that its receiver could not take", r.Src, code, r.Size)
}

// icmpError marks an ICMP error about an exchange.
func (s *story) icmpError(depth int, at time.Duration, x *trace.ICMP) {
	name := x.Name()
	if name == "" {
		name = fmt.Sprintf("type %d code %d", x.Type, x.Code)
	}
	s.add(row{depth: depth, label: "✗ ICMP " + name, tone: bad, mark: markDrop, from: at, to: at})
	text := ""
	if x.From.IsValid() {
		text = "from " + x.From.String() + ", "
	}
	text += "about the " + x.Message
	if x.MTU > 0 {
		text += fmt.Sprintf(", at most %d bytes pass", x.MTU)
	}
	if x.BPF {
		text += ", which an eBPF program made of it"
	}
	s.note(depth+1, bad, "%s", text)
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
