package render

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// Resolution draws the lookups of one call of a program, such as getaddrinfo: a
// head that lists them with what the call cost, and the waterfalls of those of them that are
// to be drawn, in order of time. It returns the error of w.
func Resolution(w io.Writer, lookups, drawn []*trace.Trace, o Options) error {
	lookups = slices.Clone(lookups)
	slices.SortStableFunc(lookups, func(a, b *trace.Trace) int { return a.Time.Compare(b.Time) })
	d := &drawing{painter: painter(o.Color), width: o.width()}
	d.call(lookups)
	if more := len(lookups) - len(drawn); more > 0 {
		d.line("")
		for _, line := range wrap(fmt.Sprintf("--full draws %s too, `dnstrace explain TRACE-ID` one of them.", english.Plural(more, "more lookup", "")), d.width-1) {
			d.line(d.paint(faint, " "+line))
		}
	}
	if _, err := w.Write(d.out.Bytes()); err != nil {
		return err
	}
	for i, t := range lookups {
		if !slices.Contains(drawn, t) {
			continue
		}
		var b bytes.Buffer
		title := fmt.Sprintf("━━ %d of %d ", i+1, len(lookups))
		b.WriteString("\n" + d.paint(strong, title+strings.Repeat("━", d.width-columns(title))) + "\n")
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
		if err := Waterfall(w, t, o); err != nil {
			return err
		}
	}
	return nil
}

// call is the head over the lookups of one call.
func (d *drawing) call(lookups []*trace.Trace) {
	first := lookups[0]
	title := fmt.Sprintf("ONE CALL, %d LOOKUPS", len(lookups))
	if d, ok := callTime(lookups); ok {
		title += " in " + took(d)
	}
	d.line(d.paint(strong, title))
	d.entry("client", client(first, &places{}))
	d.entry("call", []string{"resolution " + clean(resolutionOf(lookups))})
	d.line("")
	const (
		number, at, qtype, result, cost = 3, 9, 5, 10, 7
		gaps                            = 5
	)
	name := d.width - number - at - qtype - result - cost - 2*gaps
	row := func(t tone, cells ...string) {
		d.line(padLeft(cells[0], number) + "  " + padLeft(cells[1], at) + "  " + pad(fitMiddle(cells[2], name), name) + "  " +
			pad(fit(cells[3], qtype), qtype) + "  " + d.paint(t, pad(fit(cells[4], result), result)) + "  " + padLeft(cells[5], cost))
	}
	row(strong, "#", "AT ms", "NAME", "TYPE", "RESULT", "TOOK")
	for i, t := range lookups {
		text, tn := resultCell(t)
		spent, _ := tookCell(t)
		name, _ := nameCell(t)
		row(tn, strconv.Itoa(i+1), offset(t.Time.Sub(first.Time)), clean(name), clean(t.QType), clean(text), spent)
		if codes, _ := findingsCell(t); codes != "" {
			d.item(bad, strings.Repeat(" ", number+at+4)+"└ ", codes)
		}
	}
}

// resolutionOf names the call. Its first lookup may have been over before there
// was another, and does not know.
func resolutionOf(lookups []*trace.Trace) string {
	for _, t := range lookups {
		if t.Resolution != "" {
			return t.Resolution
		}
	}
	return lookups[0].TraceID.String()
}

// callTime is from the first query to the last response, if that was seen.
func callTime(lookups []*trace.Trace) (time.Duration, bool) {
	var last time.Duration
	for _, t := range lookups {
		if t.Duration == nil {
			return 0, false
		}
		last = max(last, t.Time.Sub(lookups[0].Time)+t.Duration.Duration())
	}
	return last, true
}
