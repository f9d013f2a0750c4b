package otlp

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// Attributes of spans for which OpenTelemetry has no name (semantic conventions
// 1.43). Values are those of the records' fields.
const (
	keyQType         attribute.Key = "dnstrace.qtype"
	keyRCode         attribute.Key = "dnstrace.rcode"
	keyID            attribute.Key = "dnstrace.id" // of the DNS message, hexadecimal
	keyOutcome       attribute.Key = "dnstrace.outcome"
	keyTransmissions attribute.Key = "dnstrace.transmissions"
	keyTruncated     attribute.Key = "dnstrace.truncated"
	keyLostEvents    attribute.Key = "dnstrace.lost_events"
	keyResolution    attribute.Key = "dnstrace.resolution"
	keyGaps          attribute.Key = "dnstrace.gaps"
	keyFindings      attribute.Key = "dnstrace.findings"
	keyZone          attribute.Key = "dnstrace.zone"
	keyCache         attribute.Key = "dnstrace.cache"
	keyAnsweredBy    attribute.Key = "dnstrace.answered_by"
	keyAttempt       attribute.Key = "dnstrace.attempt"
	keyJoin          attribute.Key = "dnstrace.join"
	keyPlugin        attribute.Key = "dnstrace.plugin"
	keyClient        attribute.Key = "dnstrace.client"   // pod, or process and its number
	keyServer        attribute.Key = "dnstrace.server"   // likewise
	keyService       attribute.Key = "dnstrace.service"  // that was asked, namespace/name
	keyEndpoint      attribute.Key = "dnstrace.endpoint" // state of what the Service led to
	keyClockOffset   attribute.Key = "dnstrace.clock_offset_seconds"
	keySample        attribute.Key = "dnstrace.sample" // the rate by which the lookup was chosen
)

// lookup adds what was asked and answered.
func (s span) lookup(qname, qtype, protocol, rcode string) {
	a := (*attributes)(&s.Attributes)
	a.text(semconv.DNSQuestionNameKey, qname)
	a.text(keyQType, qtype)
	a.text(semconv.NetworkTransportKey, protocol)
	a.text(keyRCode, rcode)
}

func (s span) question(d *trace.DNS) {
	s.lookup(d.QName, d.QType, d.Protocol, d.RCode)
	(*attributes)(&s.Attributes).text(keyID, fmt.Sprintf("0x%04x", d.ID))
	s.client(d)
}

// connection is an attempt to open one: no message was sent, so there is no ID.
func (s span) connection(d *trace.DNS) {
	(*attributes)(&s.Attributes).text(semconv.NetworkTransportKey, d.Protocol)
	s.client(d)
}

func (s span) client(d *trace.DNS) {
	(*attributes)(&s.Attributes).address(semconv.ClientAddressKey, semconv.ClientPortKey, d.ClientIP, d.ClientPort)
}

// wire adds what an exchange says of the two sides.
func (b *builder) wire(s span, e *trace.Exchange) {
	if e.Connects() {
		s.connection(&e.DNS)
	} else {
		s.question(&e.DNS)
	}
	a := (*attributes)(&s.Attributes)
	a.address(semconv.ServerAddressKey, semconv.ServerPortKey, e.ServerIP, e.ServerPort)
	peer, port := e.ServerIP, e.ServerPort
	if n := e.NAT; n != nil && n.ServerIP.IsValid() {
		peer = n.ServerIP
		if n.ServerPort != nil {
			port = *n.ServerPort
		}
	}
	a.address(semconv.NetworkPeerAddressKey, semconv.NetworkPeerPortKey, peer, port)
	var addresses []string
	for _, answer := range e.Answers {
		if answer.Type == "A" || answer.Type == "AAAA" {
			addresses = append(addresses, answer.Value)
		}
	}
	a.texts(semconv.DNSAnswersKey, addresses)
	a.text(keyClient, who(e.Client))
	a.text(keyServer, who(e.Server))
	if e.Server != nil {
		a.text(keyService, e.Server.Service)
	}
	if e.NAT != nil && e.NAT.Endpoint != nil {
		a.text(keyEndpoint, e.NAT.Endpoint.State)
	}
	a.text(keyOutcome, e.Outcome)
	if e.Transmissions > 1 {
		a.integer(keyTransmissions, int64(e.Transmissions))
	}
	a.yes(keyTruncated, e.Truncated)
	a.integer(keyLostEvents, int64(e.LostEvents))
}

// who names an endpoint.
func who(e *trace.Endpoint) string {
	switch {
	case e == nil:
		return ""
	case e.Pod != "":
		return e.Namespace + "/" + e.Pod
	case e.PID != 0:
		return e.Process + "[" + strconv.Itoa(e.PID) + "]"
	}
	return cmp.Or(e.Process, e.Container)
}

// answeredBy adds what CoreDNS says of its work.
func (s span) answeredBy(q *trace.Query) {
	a := (*attributes)(&s.Attributes)
	a.address(semconv.ServerAddressKey, semconv.ServerPortKey, q.ServerIP, q.ServerPort)
	a.text(keyZone, q.Zone)
	a.text(keyCache, q.Cache)
	a.text(keyAnsweredBy, q.AnsweredBy)
	a.text(keyOutcome, q.Outcome)
}

// attempt adds what CoreDNS says of an attempt, nil if nothing, and how its packets
// were found.
func (s span) attempt(at *trace.Attempt, join string) {
	a := (*attributes)(&s.Attributes)
	a.text(keyJoin, join)
	if at == nil {
		return
	}
	a.integer(keyAttempt, int64(at.Attempt))
	if at.QName != "" {
		a.replace(semconv.DNSQuestionNameKey, at.QName)
	}
	if at.QType != "" {
		a.replace(keyQType, at.QType)
	}
	a.text(keyPlugin, at.Plugin)
	if !a.has(semconv.ServerAddressKey) {
		s.server(at.Address)
	}
	if at.Outcome != "" {
		a.replace(keyOutcome, at.Outcome)
	}
	if at.Outcome != "" && at.Outcome != trace.OutcomeOK {
		s.fail(cmp.Or(at.Error, at.Outcome), at.Outcome)
	}
}

// server adds an upstream as it was configured: host:port, or a URL.
func (s span) server(address string) {
	a := (*attributes)(&s.Attributes)
	if ap, err := netip.ParseAddrPort(address); err == nil {
		a.address(semconv.ServerAddressKey, semconv.ServerPortKey, ap.Addr(), ap.Port())
		return
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	a.text(semconv.ServerAddressKey, host)
}

// judged adds what the trace as a whole is: what was found, and whether it failed
// its client.
func (b *builder) judged(s span) {
	t := b.trace
	a := (*attributes)(&s.Attributes)
	a.text(keyResolution, t.Resolution)
	a.seconds(keyClockOffset, t.ClockOffset)
	if t.Sample != nil {
		a.number(keySample, *t.Sample)
	}
	a.texts(keyGaps, t.Gaps)
	a.texts(keyFindings, findingCodes(t.Diagnosis))
	s.findings(t)
	if healthOf(t.Outcome, t.RCode, nil) != failing {
		return
	}
	words, kind := t.Outcome, t.Outcome
	if t.Outcome == trace.OutcomeAnswered {
		words, kind = t.RCode, t.RCode
	}
	if len(t.Diagnosis) > 0 {
		words, kind = t.Diagnosis[0].Summary, t.Diagnosis[0].Code
	}
	s.fail(words, kind)
}

// fail marks a span as failed. The kind of error is one of a few words.
func (s span) fail(words, kind string) {
	s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: sound(words)}
	(*attributes)(&s.Attributes).replace(semconv.ErrorTypeKey, strings.ToLower(kind))
}

// ends makes a span as long as something took; unknown leaves it.
func (s span) ends(d *trace.Seconds) {
	if d != nil {
		s.EndTimeUnixNano = s.StartTimeUnixNano + uint64(max(*d, 0))
	}
}

// lasts makes a span end with the response of its exchange or, where none was seen,
// with what was seen last.
func (s span) lasts(e *trace.Exchange) {
	end := lastSeen(e)
	if e.Duration != nil {
		end = e.Time.Add(e.Duration.Duration())
	}
	s.EndTimeUnixNano = max(s.StartTimeUnixNano, nanoseconds(end))
}

// link points to the trace that a TRACEPARENT in the packet names, if the span is in
// another one.
func (s span) link(e *trace.Exchange, own trace.TraceID) {
	id, parent, ok := parseTraceparent(e.Traceparent)
	if ok && id != own {
		s.Links = append(s.Links, &tracepb.Span_Link{TraceId: id[:], SpanId: parent[:]})
	}
}

// parseTraceparent reads version, trace id, span id and flags (W3C Trace Context).
func parseTraceparent(text string) (id trace.TraceID, span trace.SpanID, ok bool) {
	parts := strings.Split(text, "-")
	if len(parts) != 4 || id.UnmarshalText([]byte(parts[1])) != nil || span.UnmarshalText([]byte(parts[2])) != nil {
		return id, span, false
	}
	return id, span, !id.IsZero() && !span.IsZero()
}
