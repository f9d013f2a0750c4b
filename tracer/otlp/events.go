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
	eventICMP    = "icmp error"
	eventFinding = "finding"
	eventPlugin  = "plugin"
)

// Attributes of events.
const (
	keyNetNS     attribute.Key = "dnstrace.netns" // its name, else the number of its inode
	keyWhere     attribute.Key = "dnstrace.drop.where"
	keyReason    attribute.Key = "dnstrace.drop.reason"
	keyWords     attribute.Key = "dnstrace.drop.words"
	keyMessage   attribute.Key = "dnstrace.message" // query, response
	keyICMP      attribute.Key = "dnstrace.icmp"    // type/code
	keyCode      attribute.Key = "dnstrace.finding.code"
	keySummary   attribute.Key = "dnstrace.finding.summary"
	keyEvidence  attribute.Key = "dnstrace.finding.evidence"
	keyAdvice    attribute.Key = "dnstrace.finding.advice"
	keyHopPlugin attribute.Key = "dnstrace.plugin"
	keyHopTook   attribute.Key = "dnstrace.duration_seconds"
)

// exchange adds the packets of an exchange, nil if there is none, and how it ended.
func (s span) exchange(e *trace.Exchange) {
	if e == nil {
		return
	}
	packets := e.Path[:min(len(e.Path), maxPackets)]
	s.DroppedEventsCount += uint32(len(e.Path) - len(packets))
	for i := range packets {
		p := &packets[i]
		var a attributes
		a.place(p.NetNS, p.NetNSName, p.IfName)
		// Addresses only where they are others than before: the first of a message,
		// and where somebody translated them. They would be a quarter of what is sent.
		if i == 0 || p.Src != packets[i-1].Src || p.Dst != packets[i-1].Dst {
			a.address(semconv.SourceAddressKey, semconv.SourcePortKey, p.Src.Addr(), p.Src.Port())
			a.address(semconv.DestinationAddressKey, semconv.DestinationPortKey, p.Dst.Addr(), p.Dst.Port())
		}
		s.event(e.Time.Add(p.Offset.Duration()), p.Message+" "+p.Direction, a)
	}
	if d := e.Drop; d != nil {
		var a attributes
		a.text(keyReason, d.Reason)
		a.text(keyWhere, d.Where)
		a.text(keyWords, d.Words)
		a.text(keyMessage, d.Message)
		a.place(d.NetNS, d.NetNSName, d.IfName)
		s.event(e.Time.Add(d.Offset.Duration()), eventDrop, a)
	}
	if c := e.ICMP; c != nil {
		var a attributes
		a.text(keyICMP, strconv.Itoa(int(c.Type))+"/"+strconv.Itoa(int(c.Code)))
		a.text(keyMessage, c.Message)
		a.address(semconv.SourceAddressKey, "", c.From, 0)
		s.event(e.Time.Add(c.Offset.Duration()), eventICMP, a)
	}
}

// lastSeen returns when something of an exchange was seen last.
func lastSeen(e *trace.Exchange) time.Time {
	var last trace.Seconds
	for i := range e.Path {
		last = max(last, e.Path[i].Offset)
	}
	if e.Drop != nil {
		last = max(last, e.Drop.Offset)
	}
	if e.ICMP != nil {
		last = max(last, e.ICMP.Offset)
	}
	return e.Time.Add(last.Duration())
}

func (a *attributes) place(netns uint32, name, device string) {
	if name == "" && netns != 0 {
		name = strconv.FormatUint(uint64(netns), 10)
	}
	a.text(keyNetNS, name)
	a.text(semconv.NetworkInterfaceNameKey, device)
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
