package exchange

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// emitted is the record of an exchange, in one piece of memory with what most have:
// thousands of them wait in the assembler.
type emitted struct {
	record trace.Exchange
	parts  parts
}

// parts is what most exchanges have.
type parts struct {
	client, server         trace.Endpoint
	nat                    trace.NAT
	duration               trace.Seconds
	size, answers          int
	minTTL                 uint32
	clientPort, serverPort uint16 // of nat
}

// pointers makes a copy of a record refer to its own parts.
func (e *emitted) pointers() {
	r, own := &e.record, &e.parts
	if r.Client != nil {
		r.Client = &own.client
	}
	if r.Server != nil {
		r.Server = &own.server
	}
	if r.ResponseSize != nil {
		r.ResponseSize, r.AnswerCount = &own.size, &own.answers
	}
	if r.MinTTL != nil {
		r.MinTTL = &own.minTTL
	}
	if r.NAT != nil {
		r.NAT = &own.nat
		if r.NAT.ServerPort != nil {
			r.NAT.ServerPort = &own.serverPort
		}
		if r.NAT.ClientPort != nil {
			r.NAT.ClientPort = &own.clientPort
		}
	}
	if r.Drop != nil {
		drop := *r.Drop
		r.Drop = &drop
	}
}

// emit returns the exchange as it stands; the receiver owns it, and may give it back
// ([Table.Reuse]).
func (t *Table) emit(ex *open) *trace.Exchange {
	e := t.records.Take()
	*e = *ex.emitted
	e.pointers()
	e.record.Path = t.paths.copyOf(e.record.Path)
	return t.lend(ex, e)
}

// emitLast does so with an exchange that is over, whose record need not be copied.
func (t *Table) emitLast(ex *open) *trace.Exchange {
	if !ex.reusable() {
		return t.emit(ex)
	}
	e := ex.emitted
	ex.emitted = nil
	e.record.Path = t.paths.fitted(e.record.Path)
	return t.lend(ex, e)
}

// lend finishes the record of an exchange and passes it on.
func (t *Table) lend(ex *open, e *emitted) *trace.Exchange {
	r := &e.record
	t.lent.add(e)
	// Who is known by its process or cgroup is on this node.
	r.Node, e.parts.client.Node, e.parts.server.Node = t.cfg.Node, t.cfg.Node, t.cfg.Node
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
		e.parts.duration = trace.Seconds(time.Duration(ex.arrived[0].time - ex.first))
		r.Duration = &e.parts.duration
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
