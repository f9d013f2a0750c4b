package render

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// findingsName heads the column that gets a line of its own where it has no
// room.
const findingsName = "FINDINGS"

// column is one column of a table of lookups. Rows stream, so widths do not
// depend on what comes.
type column struct {
	name  string
	width int
	grows bool // takes a share of what is left of a wide terminal
	least int  // drawn from this terminal width on
	right bool
	cell  func(*trace.Trace) (string, tone)
	cut   func(string, int) string
}

// usualColumns are drawn in this order where nobody chooses; the last is as wide
// as it needs.
func usualColumns() []column {
	return []column{
		{name: "TIME", width: 12, cell: timeCell, cut: fit},
		{name: "CLIENT", width: 13, grows: true, cell: clientCell, cut: fitMiddle},
		{name: "SERVER", width: 13, grows: true, least: 130, cell: serverCell, cut: fitMiddle},
		{name: "NAME", width: 16, grows: true, cell: nameCell, cut: fitMiddle},
		{name: "TYPE", width: 5, least: 75, cell: typeCell, cut: fit},
		{name: "RESULT", width: 10, cell: resultCell, cut: fit},
		{name: "TOOK", width: 7, least: 70, right: true, cell: tookCell, cut: fit},
		{name: "CACHE", width: 5, least: 120, cell: cacheCell, cut: fit},
		{name: "UPSTREAMS", width: 13, least: 100, cell: upstreamsCell, cut: fit},
		{name: findingsName, cell: remarksCell, cut: fit},
	}
}

// moreColumns are drawn only where somebody asks for them.
func moreColumns() []column {
	return []column{
		{name: "DATE", width: 24, cell: dateCell, cut: fit},
		{name: "SOURCE", width: 21, grows: true, cell: sourceCell, cut: fitMiddle},
		{name: "DESTINATION", width: 21, grows: true, cell: destinationCell, cut: fitMiddle},
		{name: "TRANSLATED", width: 21, grows: true, cell: translatedCell, cut: fitMiddle},
		{name: "PROCESS", width: 12, cell: processCell, cut: fit},
		{name: "PID", width: 7, right: true, cell: pidCell, cut: fit},
		{name: "CONTAINER", width: 12, grows: true, cell: containerCell, cut: fitMiddle},
		{name: "NETNS", width: 10, grows: true, cell: netnsCell, cut: fitMiddle},
		{name: "NODE", width: 12, grows: true, cell: nodeCell, cut: fitMiddle},
		{name: "PROTOCOL", width: 8, cell: protocolCell, cut: fit},
		{name: "ID", width: 6, cell: idCell, cut: fit},
		{name: "SENT", width: 4, right: true, cell: sentCell, cut: fit},
		{name: "ANSWERED-BY", width: 12, cell: answeredByCell, cut: fit},
		{name: "UPSTREAM", width: 18, grows: true, cell: upstreamCell, cut: fitMiddle},
		{name: "ANSWERS", width: 16, grows: true, cell: answersCell, cut: fit},
		{name: "RESOLUTION", width: 16, cell: resolutionCell, cut: fit},
		{name: "TRACE", width: 32, cell: traceCell, cut: fit},
		{name: "GAPS", width: 4, right: true, cell: gapsCell, cut: fit},
	}
}

// Columns lists the names that a table's columns can have, the usual ones first.
func Columns() []string {
	var names []string
	for _, c := range append(usualColumns(), moreColumns()...) {
		names = append(names, strings.ToLower(c.name))
	}
	return names
}

func columnNamed(name string) (column, error) {
	for _, c := range append(usualColumns(), moreColumns()...) {
		if strings.EqualFold(c.name, name) {
			return c, nil
		}
	}
	return column{}, fmt.Errorf("there is no column %q; there are %s", name, strings.Join(Columns(), " "))
}

func timeCell(t *trace.Trace) (string, tone) {
	return t.Time.UTC().Format("15:04:05.000"), plain
}

func clientCell(t *trace.Trace) (string, tone) {
	var address, process string
	if q := question(t); q != nil {
		address = endpoint(q.ClientIP, q.ClientPort)
	}
	if pod := podName(t.Client); pod != "" {
		return pod, plain
	}
	if t.Client != nil && t.Client.Process != "" {
		process = " " + t.Client.Process
	}
	return orDash(address + process)
}

func serverCell(t *trace.Trace) (string, tone) {
	if pod := podName(t.Server); pod != "" {
		return pod, plain
	}
	switch {
	case t.Exchange != nil:
		return orDash(endpoint(t.Exchange.ServerIP, t.Exchange.ServerPort))
	case t.Query != nil:
		return orDash(endpoint(t.Query.ServerIP, t.Query.ServerPort))
	}
	return orDash("")
}

func nameCell(t *trace.Trace) (string, tone) {
	if t.Exchange != nil && t.Exchange.Connects() {
		return connection, faint
	}
	return t.QName, plain
}

// connection stands for the name where there is none: no question was asked,
// because the connection to ask it on did not come about.
const connection = "(TCP connection)"

func typeCell(t *trace.Trace) (string, tone) { return orDash(kind(t)) }

// kind is what is asked for: a type, or what is to be done where it is no lookup.
func kind(t *trace.Trace) string {
	if q := question(t); q != nil && q.Operation() != "" {
		return q.Operation()
	}
	return t.QType
}

func resultCell(t *trace.Trace) (string, tone) {
	_, tn := verdict(t)
	if t.RCode != "" && t.Outcome != trace.OutcomeDropped && t.Outcome != trace.OutcomeUnanswered {
		return t.RCode, tn
	}
	return t.Outcome, tn
}

func tookCell(t *trace.Trace) (string, tone) {
	if t.Duration == nil {
		return orDash("")
	}
	return took(t.Duration.Duration()), plain
}

func cacheCell(t *trace.Trace) (string, tone) {
	if t.Query == nil || t.Query.Cache == trace.CacheNone {
		return orDash("")
	}
	return orDash(t.Query.Cache)
}

// upstreamsCell counts the attempts and says what became of the failed ones.
func upstreamsCell(t *trace.Trace) (string, tone) {
	total, failed := attempts(t)
	switch {
	case total == 0:
		return orDash("")
	case failed == 0:
		return strconv.Itoa(total), plain
	}
	return fmt.Sprintf("%d (%d %s)", total, failed, failure(t)), bad
}

// failure names what failed attempts have in common.
func failure(t *trace.Trace) string {
	word := ""
	for i := range t.Upstreams {
		u := &t.Upstreams[i]
		if !u.Failed() {
			continue
		}
		w := u.Outcome()
		if w == trace.OutcomeUnanswered || w == trace.OutcomeDropped {
			w = trace.OutcomeTimeout
		}
		if word != "" && word != w {
			return "failed"
		}
		word = w
	}
	if word == "" {
		return "failed"
	}
	return word
}

// findingsCell is never cut: it is what the reader looks for.
func findingsCell(t *trace.Trace) (string, tone) {
	codes := make([]string, len(t.Diagnosis))
	for i, f := range t.Diagnosis {
		codes[i] = f.Code
		if f.InDoubt {
			codes[i] += "?"
		}
	}
	return strings.Join(codes, " "), bad
}

// remarksCell says too that a row is all of a lookup which was reported of before.
func remarksCell(t *trace.Trace) (string, tone) {
	codes, tn := findingsCell(t)
	switch {
	case !t.Replaces:
		return codes, tn
	case codes == "":
		return toldBefore, faint
	}
	return codes + " " + toldBefore, tn
}

const toldBefore = "(told before)"

func orDash(s string) (string, tone) {
	if s == "" {
		return "-", faint
	}
	return s, plain
}

func dateCell(t *trace.Trace) (string, tone) {
	return t.Time.UTC().Format("2006-01-02T15:04:05.000Z"), plain
}

// sourceCell is the client's address and port, also where its pod is known.
func sourceCell(t *trace.Trace) (string, tone) {
	if q := question(t); q != nil {
		return orDash(endpoint(q.ClientIP, q.ClientPort))
	}
	return orDash("")
}

// destinationCell is the address that the client asked, which may be a Service's.
func destinationCell(t *trace.Trace) (string, tone) {
	if t.Exchange == nil {
		return orDash("")
	}
	return orDash(endpoint(t.Exchange.ServerIP, t.Exchange.ServerPort))
}

// translatedCell is the address that the query was sent on to instead.
func translatedCell(t *trace.Trace) (string, tone) {
	if t.Exchange == nil || t.Exchange.NAT == nil || !t.Exchange.NAT.ServerIP.IsValid() {
		return orDash("")
	}
	port := t.Exchange.ServerPort
	if p := t.Exchange.NAT.ServerPort; p != nil {
		port = *p
	}
	return orDash(endpoint(t.Exchange.NAT.ServerIP, port))
}

func pidCell(t *trace.Trace) (string, tone) {
	if t.Client == nil || t.Client.PID == 0 {
		return orDash("")
	}
	return strconv.Itoa(t.Client.PID), plain
}

func containerCell(t *trace.Trace) (string, tone) {
	if t.Client == nil {
		return orDash("")
	}
	return orDash(t.Client.Container)
}

// netnsCell is the network namespace from which the query was sent, by its name
// or its number.
func netnsCell(t *trace.Trace) (string, tone) {
	if t.Exchange == nil {
		return orDash("")
	}
	left, ok := t.Exchange.Sighting(t.Exchange.Milestones.Query.Left)
	switch {
	case !ok:
		return orDash("") // the client is beyond what is observed
	case left.NetNSName != "":
		return left.NetNSName, plain
	}
	return strconv.FormatUint(uint64(left.NetNS), 10), plain
}

func processCell(t *trace.Trace) (string, tone) {
	if t.Client == nil {
		return orDash("")
	}
	return orDash(t.Client.Process)
}

func nodeCell(t *trace.Trace) (string, tone) {
	if t.Client == nil {
		return orDash("")
	}
	return orDash(t.Client.Node)
}

func protocolCell(t *trace.Trace) (string, tone) {
	if q := question(t); q != nil {
		return orDash(q.Protocol)
	}
	return orDash("")
}

func idCell(t *trace.Trace) (string, tone) {
	if q := question(t); q != nil {
		return fmt.Sprintf("%#04x", q.ID), plain
	}
	return orDash("")
}

// sentCell counts the query and its retransmissions.
func sentCell(t *trace.Trace) (string, tone) {
	if t.Exchange == nil || t.Exchange.Transmissions == 0 {
		return orDash("")
	}
	if n := t.Exchange.Transmissions; n > 1 {
		return strconv.Itoa(n), warning
	}
	return "1", plain
}

func answeredByCell(t *trace.Trace) (string, tone) {
	if t.Query == nil {
		return orDash("")
	}
	return orDash(t.Query.AnsweredBy)
}

// upstreamCell names the upstream that was asked last.
func upstreamCell(t *trace.Trace) (string, tone) {
	for i := len(t.Upstreams) - 1; i >= 0; i-- {
		switch u := &t.Upstreams[i]; {
		case u.Attempt != nil:
			return orDash(u.Attempt.Address)
		case u.Exchange != nil:
			return orDash(endpoint(u.Exchange.ServerIP, u.Exchange.ServerPort))
		}
	}
	return orDash("")
}

// answersCell lists the addresses and aliases of the response.
func answersCell(t *trace.Trace) (string, tone) {
	if t.Exchange == nil {
		return orDash("")
	}
	var all []string
	for _, a := range t.Exchange.Answers {
		all = append(all, a.Value)
	}
	return orDash(strings.Join(all, ","))
}

func resolutionCell(t *trace.Trace) (string, tone) { return orDash(t.Resolution) }

func traceCell(t *trace.Trace) (string, tone) { return t.TraceID.String(), plain }

func gapsCell(t *trace.Trace) (string, tone) {
	if len(t.Gaps) == 0 {
		return "0", faint
	}
	return strconv.Itoa(len(t.Gaps)), warning
}
