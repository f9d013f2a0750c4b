package render

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/top"
)

// TopOptions says how to draw a [top.View].
type TopOptions struct {
	Options     // Width 0: an output that is no terminal, with every column
	Sort        top.Key
	Reverse     bool
	Height      int    // lines at most; 0: no bound
	Description string // of where the lookups come from
}

// figure is one column of a table whose rows are all known.
type figure[R any] struct {
	name  string
	width int
	least int // drawn from this terminal width on
	cell  func(*R) (string, tone)
}

func clientFigures() []figure[top.Client] {
	return append([]figure[top.Client]{
		{name: "LOOKUPS", width: 7, cell: func(c *top.Client) (string, tone) { return count(c.Lookups), plain }},
		{name: "/S", width: 6, least: 90, cell: func(c *top.Client) (string, tone) { return perSecond(c.PerSecond), plain }},
		{name: "PEAK/S", width: 6, least: 90, cell: func(c *top.Client) (string, tone) { return count(c.Peak), plain }},
		{name: "TIMEOUTS", width: 8, cell: func(c *top.Client) (string, tone) { return trouble(c.Timeouts, bad) }},
		{name: "RESENT", width: 6, least: 120, cell: func(c *top.Client) (string, tone) { return trouble(c.Resent, warning) }},
		{name: "FAILED", width: 6, least: 100, cell: func(c *top.Client) (string, tone) { return trouble(c.Failed, bad) }},
		{name: "NXDOMAIN", width: 8, least: 130, cell: func(c *top.Client) (string, tone) { return trouble(c.NXDomain, plain) }},
		{name: "DIAGNOSED", width: 9, least: 140, cell: func(c *top.Client) (string, tone) { return trouble(c.Findings, bad) }},
	}, latencyFigures(72, func(c *top.Client) *top.Latency { return c.Latency })...)
}

func upstreamFigures() []figure[top.Upstream] {
	return append([]figure[top.Upstream]{
		{name: "HEALTH", width: 7, cell: healthCell},
		{name: "TRIES", width: 7, cell: func(u *top.Upstream) (string, tone) { return count(u.Attempts), plain }},
		{name: "/S", width: 6, least: 100, cell: func(u *top.Upstream) (string, tone) { return perSecond(u.PerSecond), plain }},
		{name: "PEAK/S", width: 6, least: 110, cell: func(u *top.Upstream) (string, tone) { return count(u.Peak), plain }},
		{name: "TIMEOUTS", width: 8, cell: func(u *top.Upstream) (string, tone) { return trouble(u.Timeouts, bad) }},
		{name: "RESENT", width: 6, least: 120, cell: func(u *top.Upstream) (string, tone) { return trouble(u.Resent, warning) }},
		{name: "FAILED", width: 6, least: 90, cell: func(u *top.Upstream) (string, tone) { return trouble(u.Failed, bad) }},
		{name: "NXDOMAIN", width: 8, least: 130, cell: func(u *top.Upstream) (string, tone) { return trouble(u.NXDomain, plain) }},
	}, latencyFigures(100, func(u *top.Upstream) *top.Latency { return u.Latency })...)
}

// latencyFigures are the same of both tables; the minimum is drawn from a
// terminal width on.
func latencyFigures[R any](leastMin int, of func(*R) *top.Latency) []figure[R] {
	one := func(name string, least int, pick func(*top.Latency) trace.Seconds) figure[R] {
		return figure[R]{name: name, width: 7, least: least, cell: func(r *R) (string, tone) {
			l := of(r)
			if l == nil {
				return orDash("")
			}
			return took(pick(l).Duration()), plain
		}}
	}
	return []figure[R]{
		one("MIN", leastMin, func(l *top.Latency) trace.Seconds { return l.Min }),
		one("AVG", 0, func(l *top.Latency) trace.Seconds { return l.Avg }),
		one("P50", 72, func(l *top.Latency) trace.Seconds { return l.P50 }),
		one("P99", 0, func(l *top.Latency) trace.Seconds { return l.P99 }),
		one("MAX", 0, func(l *top.Latency) trace.Seconds { return l.Max }),
	}
}

func healthCell(u *top.Upstream) (string, tone) {
	switch u.Health {
	case top.HealthOK:
		return u.Health, good
	case top.HealthFailing, top.HealthPartial:
		return u.Health, warning
	}
	return u.Health, bad
}

// trouble shows a count that is best when it is none.
func trouble(n uint64, t tone) (string, tone) {
	if n == 0 {
		return "0", faint
	}
	return count(n), t
}

// count formats a number in at most seven columns.
func count(n uint64) string {
	switch {
	case n < 1e7:
		return strconv.FormatUint(n, 10)
	case n < 1e9:
		return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + "M"
	}
	return strconv.FormatFloat(float64(n)/1e9, 'f', 1, 64) + "G"
}

// perSecond formats a rate with three digits.
func perSecond(r float64) string {
	switch {
	case r == 0:
		return "0"
	case r < 0.01:
		return "<0.01"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(r*1.0005))))
	return strconv.FormatFloat(r, 'f', min(decimals, 2), 64)
}

// Top draws a view: a head, the clients, and the upstreams. It sorts the view,
// and returns the error of w.
func Top(w io.Writer, v *top.View, o TopOptions) error {
	v.Sort(o.Sort, o.Reverse)
	d := &board{painter: painter(o.Color), limit: math.MaxInt, layout: math.MaxInt}
	if o.Width > 0 {
		d.limit = max(o.Width, MinWidth)
		d.layout = d.limit
	}
	d.head(v, &o)
	clients, upstreams := share(o.Height, len(v.Clients), len(v.Upstreams), d.lines)
	if len(v.Clients) > 0 {
		drawRows(d, "CLIENT", v.Clients, clients, func(c *top.Client) string { return c.Client }, clientFigures())
	}
	if len(v.Upstreams) > 0 {
		drawRows(d, "UPSTREAM", v.Upstreams, upstreams, func(u *top.Upstream) string { return u.Upstream }, upstreamFigures())
	}
	_, err := io.WriteString(w, d.out.String())
	return err
}

// share divides the lines of a screen between the tables: upstreams are few, and
// get up to a third.
func share(height, clients, upstreams, used int) (int, int) {
	if height == 0 {
		return clients, upstreams
	}
	// Each table has an empty line, a head, and maybe a line about the rest.
	room := max(height-used-6, 2)
	u := min(upstreams, max(room/3, room-clients))
	return min(clients, max(room-u, 1)), max(u, 1)
}

// board is a view in the making.
type board struct {
	painter
	out           strings.Builder
	limit, layout int
	lines         int
}

func (d *board) line(s string) {
	d.out.WriteString(strings.TrimRight(s, " "))
	d.out.WriteByte('\n')
	d.lines++
}

func (d *board) head(v *top.View, o *TopOptions) {
	about := []string{english.Plural(int(v.Total.Lookups), "lookup", "")}
	if !v.From.IsZero() {
		about = append(about, spanOf(v))
		if over := max(v.To.Sub(v.From), time.Second); v.Total.Lookups > 0 {
			about = append(about, perSecond(float64(v.Total.Lookups)/over.Seconds())+" a second")
		}
	}
	about = append(about, english.Plural(int(v.Total.Timeouts), "timeout", ""), fmt.Sprintf("%d with a diagnosis", v.Total.Findings))
	order := "by " + string(cmp.Or(o.Sort, top.ByTimeouts))
	if o.Reverse {
		order += ", reversed"
	}
	about = append(about, order)
	if o.Description != "" {
		about = append(about, clean(o.Description))
	}
	for _, line := range wrapParts(about, " · ", d.limit) {
		d.line(d.paint(strong, line))
	}
	d.notes(v)
}

// notes says what the figures leave out.
func (d *board) notes(v *top.View) {
	var notes []string
	if v.Total.Sampled > 0 {
		notes = append(notes, english.Plural(int(v.Total.Sampled), "sample", "")+" among the lookups: there were more, which CoreDNS did not record")
	}
	if v.Late > 0 {
		notes = append(notes, english.Plural(int(v.Late), "lookup", "")+" told of after its time, not counted")
	}
	for _, note := range notes {
		for _, line := range wrap(note, d.limit) {
			d.line(d.paint(warning, line))
		}
	}
}

// spanOf says which time a view covers.
func spanOf(v *top.View) string {
	from, to := v.From.UTC(), v.To.UTC()
	format := "15:04:05"
	if from.Format(time.DateOnly) != to.Format(time.DateOnly) {
		format = time.DateTime
	}
	return from.Format(format) + " to " + to.Format(format) + " UTC"
}

func drawRows[R any](d *board, title string, rows []R, most int, name func(*R) string, all []figure[R]) {
	var figures []figure[R]
	room := d.layout
	for _, f := range all {
		if d.layout < f.least {
			continue
		}
		figures = append(figures, f)
		room -= f.width + 1
	}
	names := columns(title)
	for i := range rows {
		names = max(names, columns(clean(name(&rows[i]))))
	}
	names = min(names, room)
	d.line("")
	var b strings.Builder
	b.WriteString(d.paint(strong, pad(title, names)))
	for _, f := range figures {
		b.WriteString(" " + d.paint(strong, padLeft(f.name, f.width)))
	}
	d.line(b.String())
	for i := range rows[:min(most, len(rows))] {
		b.Reset()
		b.WriteString(pad(fitMiddle(clean(name(&rows[i])), names), names))
		for _, f := range figures {
			text, tn := f.cell(&rows[i])
			text = fit(clean(text), f.width)
			b.WriteString(" " + strings.Repeat(" ", f.width-columns(text)) + d.paint(tn, text))
		}
		d.line(b.String())
	}
	if more := len(rows) - most; more > 0 {
		d.line(d.paint(faint, fmt.Sprintf("… %d more", more)))
	}
}
