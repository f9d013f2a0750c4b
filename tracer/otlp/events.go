package otlp

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// maxEvents is what OpenTelemetry's SDKs let a span have; backends may refuse more.
// The packets leave room for what matters more.
const (
	maxEvents  = 128
	maxPackets = 96
)

// Names of events. Packets are called by message and direction: "query tx",
// "response rx".
const (
	eventDrop    = "drop"
	eventReject  = "rejected response"
	eventReset   = "tcp reset"
	eventICMP    = "icmp error"
	eventFinding = "finding"
	eventPlugin  = "plugin"
)

// Attributes of events.
const (
	keyNetNS       attribute.Key = "dnstrace.netns" // its name, else the number of its inode
	keyWhere       attribute.Key = "dnstrace.drop.where"
	keyReason      attribute.Key = "dnstrace.drop.reason"
	keyDescription attribute.Key = "dnstrace.drop.words"
	keyBPF         attribute.Key = "dnstrace.drop.bpf" // kind of eBPF program
	keyRejected    attribute.Key = "dnstrace.rejected.why"
	keyMessage     attribute.Key = "dnstrace.message" // query, response
	keyICMP        attribute.Key = "dnstrace.icmp"    // type/code
	keyICMPByBPF   attribute.Key = "dnstrace.icmp.bpf"
	keyCode        attribute.Key = "dnstrace.finding.code"
	keySummary     attribute.Key = "dnstrace.finding.summary"
	keyEvidence    attribute.Key = "dnstrace.finding.evidence"
	keyAdvice      attribute.Key = "dnstrace.finding.advice"
	keyHopPlugin   attribute.Key = "dnstrace.plugin"
	keyHopTook     attribute.Key = "dnstrace.duration_seconds"
)

// exchange adds the packets of an exchange, nil if there is none, and how it ended.
func (s span) exchange(e *trace.Exchange) {
	if e == nil {
		return
	}
	s.packets(e)
	for i := range e.Drops {
		d := &e.Drops[i]
		var a attributes
		a.text(keyReason, d.Reason)
		a.text(keyWhere, d.Where)
		a.text(keyDescription, d.Description)
		a.text(keyBPF, d.BPF)
		a.text(keyMessage, d.Message)
		a.place(e, &trace.Device{Node: d.Node, NetNS: d.NetNS, NetNSName: d.NetNSName, IfName: d.IfName})
		s.event(e.Time.Add(d.Offset.Duration()), eventDrop, a)
	}
	for i := range e.Rejected {
		r := &e.Rejected[i]
		var a attributes
		a.text(keyRejected, r.Why)
		a.text(keyRCode, r.RCode)
		a.address(semconv.SourceAddressKey, semconv.SourcePortKey, r.Src.Addr(), r.Src.Port())
		s.event(e.Time.Add(r.Offset.Duration()), eventReject, a)
	}
	if r := e.Reset; r != nil {
		var a attributes
		a.address(semconv.SourceAddressKey, semconv.SourcePortKey, r.Src.Addr(), r.Src.Port())
		s.event(e.Time.Add(r.Offset.Duration()), eventReset, a)
	}
	if c := e.ICMP; c != nil {
		var a attributes
		a.text(keyICMP, strconv.Itoa(int(c.Type))+"/"+strconv.Itoa(int(c.Code)))
		a.text(keyMessage, c.Message)
		a.address(semconv.SourceAddressKey, "", c.From, 0)
		a.place(e, &trace.Device{Node: c.Node, NetNS: c.NetNS, NetNSName: c.NetNSName, IfName: c.IfName})
		a.yes(keyICMPByBPF, c.BPF)
		s.event(e.Time.Add(c.Offset.Duration()), eventICMP, a)
	}
}

// packets adds the sightings of an exchange, of many the first.
func (s span) packets(e *trace.Exchange) {
	n := min(e.Path.Len(), maxPackets)
	s.DroppedEventsCount += uint32(e.Path.Len() - n)
	var before trace.Sighting
	for i := range n {
		p := e.Path.At(i)
		var a attributes
		a.place(e, &p.Device)
		// Addresses only where they change: at the first of a message, and after a
		// translation. They would be a quarter of what is sent.
		if i == 0 || p.Src != before.Src || p.Dst != before.Dst {
			a.address(semconv.SourceAddressKey, semconv.SourcePortKey, p.Src.Addr(), p.Src.Port())
			a.address(semconv.DestinationAddressKey, semconv.DestinationPortKey, p.Dst.Addr(), p.Dst.Port())
		}
		s.event(e.Time.Add(p.Offset.Duration()), p.Message+" "+p.Direction, a)
		before = p
	}
}

// lastSeen returns when something of an exchange was seen last.
func lastSeen(e *trace.Exchange) time.Time {
	var last trace.Seconds
	if n := e.Path.Len(); n > 0 {
		last = max(last, e.Path.At(n-1).Offset)
	}
	if d := e.LastDrop(); d != nil {
		last = max(last, d.Offset)
	}
	if n := len(e.Rejected); n > 0 {
		last = max(last, e.Rejected[n-1].Offset)
	}
	if e.Reset != nil {
		last = max(last, e.Reset.Offset)
	}
	if e.ICMP != nil {
		last = max(last, e.ICMP.Offset)
	}
	return e.Time.Add(last.Duration())
}

// place adds a namespace and its device, with the node if that is not the exchange's.
func (a *attributes) place(e *trace.Exchange, d *trace.Device) {
	name := d.NetNSName
	if name == "" && d.NetNS != 0 {
		name = strconv.FormatUint(uint64(d.NetNS), 10)
	}
	a.text(keyNetNS, name)
	a.text(semconv.NetworkInterfaceNameKey, d.IfName)
	if d.Node != e.Node {
		a.text(semconv.K8SNodeNameKey, d.Node)
	}
}

// hops adds the plugins that a query passed, each with the time until it and those
// after it were done.
func (s span) hops(start time.Time, hops []trace.Hop) {
	for i := range hops {
		var a attributes
		a.text(keyHopPlugin, hops[i].Plugin)
		a.seconds(keyHopTook, hops[i].Duration)
		s.event(start.Add(hops[i].Start.Duration()), eventPlugin, a)
	}
}

// findings adds what was found: at the end, when it was known.
func (s span) findings(t *trace.Trace) {
	for _, f := range t.Diagnosis {
		var a attributes
		a.text(keyCode, f.Code)
		a.text(keySummary, f.Summary)
		a.texts(keyEvidence, f.Evidence)
		a.text(keyAdvice, f.Advice)
		s.event(time.Unix(0, int64(s.EndTimeUnixNano)), eventFinding, a)
	}
}

// event adds an event. Where there are too many, the last are left out and counted.
func (s span) event(at time.Time, name string, a attributes) {
	if len(s.Events) >= maxEvents {
		s.DroppedEventsCount++
		return
	}
	s.Events = append(s.Events, &tracepb.Span_Event{TimeUnixNano: nanoseconds(at), Name: name, Attributes: a})
}
