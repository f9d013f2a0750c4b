package otlp

import (
	"strings"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// Attributes of log records, by the names of the records' fields: so a query in
// LogQL is the same whether a shipper or OTLP brought the record. They are few,
// because Loki keeps them beside each line.
const (
	logRecordKind = "record"
	logQName      = "qname"
	logQType      = "qtype"
	logRCode      = "rcode"
	logOutcome    = "outcome"
	logFindings   = "findings" // codes, with commas between
	logPod        = "pod"      // the client's
	logNamespace  = "pod_namespace"
)

// entry is what a log record is made of. Making one, on the packet path, copies the line and
// little else.
type entry struct {
	time, observed         time.Time
	id                     trace.TraceID
	span                   trace.SpanID
	kind, line             string
	name, qtype, rcode     string
	outcome, findings      string
	clientPod, clientSpace string
	health                 health
}

func newEntry(r trace.Record, line []byte, now time.Time) entry {
	h := r.Head()
	e := entry{time: h.Time, observed: now, id: h.TraceID, kind: r.Kind(), line: string(line)}
	switch r := r.(type) {
	case *trace.Exchange:
		e.name, e.qtype, e.rcode, e.outcome = r.QName, r.QType, r.RCode, r.Outcome
		e.health = healthOf(r.Outcome, r.RCode, nil)
		e.span = trace.NewSpanID(r.TraceID, trace.SpanID{}, trace.RoleClient, 0)
		e.of(r.Client)
	case *trace.Trace:
		e.name, e.qtype, e.rcode, e.outcome = r.QName, r.QType, r.RCode, r.Outcome
		e.health, e.findings = healthOf(r.Outcome, r.RCode, r.Diagnosis), strings.Join(findingCodes(r.Diagnosis), ",")
		e.span = topSpan(r)
		e.of(r.Client)
	}
	return e
}

func (e *entry) of(client *trace.Endpoint) {
	if client != nil {
		e.clientPod, e.clientSpace = client.Pod, client.Namespace
	}
}

// record returns the entry as OTLP has it.
func (e *entry) record() *logspb.LogRecord {
	l := &logspb.LogRecord{
		TimeUnixNano: nanoseconds(e.time), ObservedTimeUnixNano: nanoseconds(e.observed),
		Body: textValue(e.line), TraceId: e.id[:], SpanId: e.span[:],
	}
	a := attributes{text(logRecordKind, e.kind)}
	a.text(logQName, e.name)
	a.text(logQType, e.qtype)
	a.text(logRCode, e.rcode)
	a.text(logOutcome, e.outcome)
	a.text(logFindings, e.findings)
	a.text(logPod, e.clientPod)
	a.text(logNamespace, e.clientSpace)
	l.Attributes = a
	l.SeverityNumber, l.SeverityText = e.health.severity()
	return l
}

// logRecords returns a batch as OTLP has it.
func logRecords(batch []entry) []*logspb.LogRecord {
	all := make([]*logspb.LogRecord, len(batch))
	for i := range batch {
		all[i] = batch[i].record()
	}
	return all
}

// health is how a lookup went for its client.
type health uint8

const (
	healthy    health = iota
	remarkable        // something was found
	failing           // no answer that helps
)

func (h health) severity() (logspb.SeverityNumber, string) {
	switch h {
	case failing:
		return logspb.SeverityNumber_SEVERITY_NUMBER_ERROR, "ERROR"
	case remarkable:
		return logspb.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	return logspb.SeverityNumber_SEVERITY_NUMBER_INFO, "INFO"
}

// healthOf judges by what came back. That a name does not exist is an answer.
func healthOf(outcome, rcode string, found []trace.Finding) health {
	switch {
	case outcome != trace.OutcomeAnswered, rcode != "" && rcode != "NOERROR" && rcode != "NXDOMAIN":
		return failing
	case len(found) > 0:
		return remarkable
	}
	return healthy
}

func findingCodes(found []trace.Finding) []string {
	var all []string
	for i := range found {
		all = append(all, found[i].Code)
	}
	return all
}

func nanoseconds(t time.Time) uint64 { return uint64(t.UnixNano()) }
