package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// namespace names a network namespace of a trace, with its node where records of
// more than one are at hand.
func namespace(t *trace.Trace, node, name string, inode uint32) string {
	text := "an unknown namespace"
	switch {
	case name != "":
		text = "namespace " + name
	case inode != 0:
		text = fmt.Sprintf("namespace %d", inode)
	}
	if node != "" && severalNodes(t) {
		text += " of node " + node
	}
	return text
}

// namespaceOf names the namespace of a device.
func namespaceOf(t *trace.Trace, d *trace.Device) string {
	return namespace(t, d.Node, d.NetNSName, d.NetNS)
}

// severalNodes tells whether a trace has records of more than one node.
func severalNodes(t *trace.Trace) bool {
	first, several := "", false
	see := func(node string) {
		if first == "" {
			first = node
		}
		several = several || node != "" && node != first
	}
	for _, s := range subjects(t) {
		see(s.exchange.Node)
		for _, at := range s.exchange.Path.All() {
			see(at.Node)
		}
		for i := range s.exchange.Drops {
			see(s.exchange.Drops[i].Node)
		}
	}
	return several
}

// device names a device, which a packet on its way out does not have yet.
func device(name string) string {
	if name == "" {
		return "before it had a device"
	}
	return "at device " + name
}

// lastSighting quotes the last place where a message was seen.
func lastSighting(t *trace.Trace, ex *trace.Exchange, message string) (string, bool) {
	return lastSightingBefore(t, ex, message, math.MaxInt64)
}

// lastSightingBefore quotes the last place where a message was seen up to some
// time after the first packet.
func lastSightingBefore(t *trace.Trace, ex *trace.Exchange, message string, until trace.Seconds) (string, bool) {
	s, ok := ex.Last(message, until)
	if !ok {
		return "", false
	}
	what := "it"
	if message == trace.MessageResponse {
		what = "its " + packet(ex, trace.MessageQuery)
	}
	when := "when"
	if s.Offset != 0 {
		when = since(s.Offset) + " after"
	}
	return fmt.Sprintf("the %s was last seen %s the client sent %s, %s in %s (%s > %s)",
		packet(ex, message), when, what, how(&s), namespaceOf(t, &s.Device), s.Src, s.Dst), true
}

// how says what happened to a packet where it was seen.
func how(s *trace.Sighting) string {
	switch s.Direction {
	case trace.DirectionTX:
		return "sent to device " + s.IfName
	case trace.DirectionDelivered:
		return "delivered to a socket"
	case trace.DirectionRead:
		return "read from a socket by its process"
	}
	return "received from device " + s.IfName
}

// lastPlace goes on with where a message was last seen, if it was seen at all.
func lastPlace(t *trace.Trace, ex *trace.Exchange, message string) string {
	s, ok := ex.Last(message, math.MaxInt64)
	if !ok {
		return ""
	}
	at := "at device " + s.IfName
	switch s.Direction {
	case trace.DirectionDelivered:
		at = "delivered to a socket"
	case trace.DirectionRead:
		at = "read by its process"
	}
	return fmt.Sprintf("; the %s was last seen %s in %s", packet(ex, message), at, namespaceOf(t, &s.Device))
}

// packet names what carries a message: of an attempt to connect, there is none.
func packet(ex *trace.Exchange, message string) string {
	switch {
	case !ex.Connects():
		return message
	case message == trace.MessageResponse:
		return "SYN-ACK"
	}
	return "SYN"
}

// since writes a duration as drawings do.
func since(s trace.Seconds) string { return s.String() }

// request names what a client wanted: a name and a type, or what it wanted done.
func request(t *trace.Trace) string {
	d := &trace.DNS{}
	switch {
	case t.Exchange != nil:
		d = &t.Exchange.DNS
	case t.Query != nil:
		d = &t.Query.DNS
	}
	if op := d.Operation(); op != "" {
		return fmt.Sprintf("%s for the zone %s", op, cmp.Or(strings.TrimSuffix(t.QName, "."), t.QName))
	}
	return t.QName + " " + t.QType
}

// took is since for a time.Duration.
func took(d time.Duration) string { return since(trace.Seconds(d)) }

// who names the client of a lookup: the pod or process, and the address.
func who(ex *trace.Exchange) string {
	name := ""
	if c := ex.Client; c != nil {
		switch {
		case c.Pod != "":
			name = "pod " + c.Namespace + "/" + c.Pod
		case c.Process != "":
			name = "process " + c.Process
		}
	}
	if name == "" {
		return ex.ClientIP.String()
	}
	return fmt.Sprintf("%s (%s)", name, ex.ClientIP)
}

// processOf names the process at an end of an exchange; its kind where it is not known.
func processOf(e *trace.Endpoint, kind string) string {
	switch {
	case e == nil || e.Process == "":
		return kind
	case e.PID == 0:
		return e.Process
	}
	return fmt.Sprintf("%s (process %d)", e.Process, e.PID)
}
