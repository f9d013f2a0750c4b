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
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// Resolution draws the lookups of one call of a program, such as getaddrinfo: what the call
// cost and what went wrong, a list of them, and the waterfalls of those of them that are to be
// drawn, in order of time; the worst of those, which the head names, is given first. It returns
// the error of w.
func Resolution(w io.Writer, lookups, drawn []*trace.Trace, o Options) error {
	lookups = slices.Clone(lookups)
	slices.SortStableFunc(lookups, func(a, b *trace.Trace) int { return a.Time.Compare(b.Time) })
	d := &drawing{painter: painter(o.Color), width: o.width()}
	d.call(lookups, drawn[0])
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
		if err := waterfall(w, t, o, len(drawn) == 1); err != nil {
			return err
		}
	}
	return nil
}

// call is the head over the lookups of one call.
func (d *drawing) call(lookups []*trace.Trace, worst *trace.Trace) {
	first := lookups[0]
	title := fmt.Sprintf("ONE CALL, %d LOOKUPS", len(lookups))
	if d, ok := callTime(lookups); ok {
		title += " in " + took(d)
	}
	ended, tn := resultCell(worst)
	ended = fit(clean(ended), d.width/4)
	which := fmt.Sprintf("#%d %s", slices.Index(lookups, worst)+1, asked(worst))
	which = fitMiddle(which, d.width-columns(title)-columns(ended)-4)
	d.line(d.paint(strong, title) + "  " + which + "  " + d.paint(tn, ended))
	d.callCause(lookups, worst)
	d.line("")
	d.entry("client", client(first, &places{}))
	d.entry("call", []string{"resolution " + clean(resolutionOf(lookups))})
	d.line("")
	d.list(lookups, worst)
}

// mostListed lookups of a call are listed. Few calls have so many: a long search list, each
// name asked for again.
const mostListed = 24

// list has a line for each lookup of a call, or for those that matter most and the first.
func (d *drawing) list(lookups []*trace.Trace, worst *trace.Trace) {
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
	listed := mattering(lookups, worst)
	for i, t := range lookups {
		if !listed[t] {
			continue
		}
		text, tn := resultCell(t)
		spent, _ := tookCell(t)
		name, _ := nameCell(t)
		row(tn, strconv.Itoa(i+1), offset(t.Time.Sub(lookups[0].Time)), clean(name), clean(t.QType), clean(text), spent)
		if codes, _ := findingsCell(t); codes != "" {
			d.item(bad, strings.Repeat(" ", number+at+4)+"└ ", codes)
		}
	}
	if more := len(lookups) - len(listed); more > 0 {
		d.line(d.paint(faint, "     … and "+english.Plural(more, "lookup", "")+" more, none worse than these"))
	}
}

// mattering chooses what is listed of many: the worst, those that failed or have a finding,
// and the first.
func mattering(lookups []*trace.Trace, worst *trace.Trace) map[*trace.Trace]bool {
	listed := map[*trace.Trace]bool{worst: true}
	add := func(wanted func(*trace.Trace) bool) {
		for _, t := range lookups {
			if len(listed) < mostListed && wanted(t) {
				listed[t] = true
			}
		}
	}
	add(func(t *trace.Trace) bool { _, tn := resultCell(t); return tn == bad })
	add(func(t *trace.Trace) bool { return len(t.Diagnosis) > 0 })
	add(func(*trace.Trace) bool { return true })
	return listed
}

// callCause says why: the findings of all lookups, each code once. Of those that are as near
// to the cause, the worst lookup's come first.
func (d *drawing) callCause(lookups []*trace.Trace, worst *trace.Trace) {
	found := map[string]int{} // by code: the lookup that it is reported of
	var all []trace.Finding
	collect := func(t *trace.Trace) {
		for _, f := range t.Diagnosis {
			of := slices.Index(lookups, t) + 1
			if at, ok := found[f.Code]; ok && at != of {
				continue
			}
			found[f.Code] = of
			all = append(all, f)
		}
	}
	collect(worst)
	for _, t := range lookups {
		if t != worst {
			collect(t)
		}
	}
	if len(all) == 0 {
		d.cause(worst, newPlaces(worst))
		return
	}
	diagnose.Order(all)
	d.findings(all, func(f *trace.Finding) string { return fmt.Sprintf(" (#%d)", found[f.Code]) })
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
