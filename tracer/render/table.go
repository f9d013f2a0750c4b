package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

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

// tableColumns are drawn in this order; the last is as wide as it needs.
func tableColumns() []column {
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
		{name: "FINDINGS", cell: findingsCell, cut: fit},
	}
}

// Widths that NewTable shares out. Healthy lookups have no findings, so their
// column gets little on a narrow terminal, where the codes that do not fit get a
// line of their own; where there is room, the longest code fits.
const (
	findingsFrom  = 100 // terminal width from which findings have a column
	findingsLeast = 8
	findingsFull  = 26
	pipeWidth     = 190 // of an output that is no terminal
)

// Table writes lookups one a line, for watching them pass; where the line has no
// room for findings, they stand beneath it.
type Table struct {
	w       io.Writer
	painter painter
	limit   int // 0: no cut
	columns []column
	headed  bool
}

// NewTable returns a table that writes to w. A Width of 0 is that of an output
// which is no terminal: every column is there, and the last is never cut.
func NewTable(w io.Writer, o Options) *Table {
	t := &Table{w: w, painter: painter(o.Color)}
	width := pipeWidth
	if o.Width > 0 {
		t.limit = max(o.Width, MinWidth)
		width = t.limit
	}
	used, growing := 0, 0
	for _, c := range tableColumns() {
		if width < c.least {
			continue
		}
		t.columns = append(t.columns, c)
		used += c.width + 2
		if c.grows {
			growing++
		}
	}
	spare := width - used
	if width >= findingsFrom {
		spare -= max(findingsLeast, min(findingsFull, spare-6*growing))
	}
	for i := range t.columns {
		if c := &t.columns[i]; c.grows && spare > 0 {
			c.width += min(spare/growing, 30)
		}
	}
	return t
}

// Row writes one lookup, and before the first one the head.
func (t *Table) Row(tr *trace.Trace) error {
	var b strings.Builder
	if !t.headed {
		t.headed = true
		t.line(&b, func(c *column) (string, tone) { return c.name, strong })
	}
	t.line(&b, func(c *column) (string, tone) {
		s, tn := c.cell(tr)
		return clean(s), tn
	})
	_, err := io.WriteString(t.w, b.String())
	return err
}

func (t *Table) line(b *strings.Builder, cell func(*column) (string, tone)) {
	// Spaces wait for the text after them: a line has none at its end.
	used, spaces, below := 0, 0, ""
	for i := range t.columns {
		c := &t.columns[i]
		text, tn := cell(c)
		room := c.width
		if i == len(t.columns)-1 {
			room = columns(text)
			if t.limit > 0 {
				room = min(room, t.limit-used)
			}
		}
		if columns(text) > room && i == len(t.columns)-1 {
			below, text = text, ""
		}
		text = c.cut(text, room)
		free := room - columns(text)
		if c.right {
			spaces += free
			free = 0
		}
		if text != "" {
			b.WriteString(strings.Repeat(" ", spaces))
			b.WriteString(t.painter.paint(tn, text))
			spaces = 0
		}
		spaces += free + 2
		used += room + 2
	}
	b.WriteByte('\n')
	if below != "" {
		indent := strings.Repeat(" ", t.columns[0].width) + "  └ "
		b.WriteString(indent + t.painter.paint(bad, fit(below, t.limit-columns(indent))) + "\n")
	}
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

func nameCell(t *trace.Trace) (string, tone) { return t.QName, plain }

func typeCell(t *trace.Trace) (string, tone) { return t.QType, plain }

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
		if !upstreamFailed(u) {
			continue
		}
		w := trace.OutcomeTimeout
		if u.Attempt != nil {
			w = u.Attempt.Outcome
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
	}
	return strings.Join(codes, " "), bad
}

func orDash(s string) (string, tone) {
	if s == "" {
		return "-", faint
	}
	return s, plain
}
