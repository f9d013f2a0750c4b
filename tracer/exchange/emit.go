package exchange

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// emitted is an exchange that is passed on: thousands of them wait in the
// assembler.
type emitted struct {
	trace.Exchange
	parts
}

// pointers makes the record refer to its own parts, not to those of the open
// exchange that it was copied from.
func (e *emitted) pointers() {
	r := &e.Exchange
	if r.Client != nil {
		r.Client = &e.client
	}
	if r.Server != nil {
		r.Server = &e.server
	}
	if r.ResponseSize != nil {
		r.ResponseSize, r.AnswerCount = &e.size, &e.answers
	}
	if r.MinTTL != nil {
		r.MinTTL = &e.minTTL
	}
	if r.NAT != nil {
		r.NAT = &e.nat
		if r.NAT.ServerPort != nil {
			r.NAT.ServerPort = &e.serverPort
		}
		if r.NAT.ClientPort != nil {
			r.NAT.ClientPort = &e.clientPort
		}
	}
	if r.Drop != nil {
		drop := *r.Drop
		r.Drop = &drop
	}
}

// emit returns the exchange as it stands; the receiver owns it, and may give its
// path back ([Table.Reuse]).
func (t *Table) emit(ex *open) *trace.Exchange {
	e := &emitted{ex.record, ex.parts}
	e.pointers()
	r := &e.Exchange
	// Who is known by its process or cgroup is on this node.
	r.Node, e.client.Node, e.server.Node = t.cfg.Node, t.cfg.Node, t.cfg.Node
	r.Path = t.paths.copyOf(ex.record.Path)
	r.Time = ex.wall
	// The server sees the translated client: its name for the lookup counts.
	client := netip.AddrPortFrom(r.ClientIP, r.ClientPort)
	if r.NAT != nil && r.NAT.ClientPort != nil {
		client = netip.AddrPortFrom(r.NAT.ClientIP, *r.NAT.ClientPort)
	}
	r.Flow = trace.NewFlow(ex.keys[0].protocol, client, r.ID, ex.qtype, ex.qclass, ex.name)
	r.TraceID = trace.NewTraceID(r.Time, r.Flow)
	r.Transmissions = max(r.Transmissions, 1)
	switch {
	case len(ex.arrived) > 0:
		r.Outcome = trace.OutcomeAnswered
		e.duration = trace.Seconds(time.Duration(ex.arrived[0].time - ex.first))
		r.Duration = &e.duration
	case ex.dropSeen:
		r.Outcome = trace.OutcomeDropped
	default:
		r.Outcome = trace.OutcomeUnanswered
	}
	r.Fragments = ex.fragments()
	return r
}

// rcodeName returns the name of a response code, or its number.
func rcodeName(code int) string {
	if name := dns.RcodeToString[code]; name != "" {
		return name
	}
	return strconv.Itoa(code)
}

func message(response bool) string {
	if response {
		return trace.MessageResponse
	}
	return trace.MessageQuery
}
