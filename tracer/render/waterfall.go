// Package render draws what a person reads: one lookup as a waterfall, many as
// a table. Its functions are pure: records in, text out.
package render

import (
	"bytes"
	"io"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Widths in columns.
const (
	DefaultWidth = 80
	MinWidth     = 60
	maxWidth     = 160 // beyond, the eye no longer follows a row
)

// Options says how to draw.
type Options struct {
	Width int  // columns; 0: DefaultWidth; less than MinWidth: MinWidth
	Color bool // nothing is said by colour alone
}

func (o Options) width() int {
	if o.Width == 0 {
		return DefaultWidth
	}
	return min(max(o.Width, MinWidth), maxWidth)
}

// Waterfall draws one lookup: its result and why, who asked whom, every stage in order of
// time with what it cost, what was not observed, and the evidence. It returns the error of w.
func Waterfall(w io.Writer, t *trace.Trace, o Options) error { return waterfall(w, t, o, false) }

func waterfall(w io.Writer, t *trace.Trace, o Options, reported bool) error {
	width := o.width()
	d := &drawing{
		painter: painter(o.Color), width: width,
		labels: min(max(width*46/100, 28), 56), offsets: 8, costs: 7, reported: reported,
	}
	d.axis = d.width - d.labels - d.offsets - d.costs - 3
	drawn := t
	if t.Role == trace.RoleUpstream {
		drawn = withoutLookup(t)
	}
	s := &story{trace: drawn, places: newPlaces(drawn), labels: d.labels}
	s.tell()
	d.head(t, s.places)
	if len(s.rows) > 0 {
		d.out.WriteByte('\n')
		d.rows(s.rows)
	}
	d.gaps(t)
	d.evidence(t)
	_, err := w.Write(d.out.Bytes())
	return err
}

// withoutLookup returns an upstream query whose lookup is not known as what it is:
// one that no client waits for.
func withoutLookup(t *trace.Trace) *trace.Trace {
	c := *t
	c.Exchange, c.Query = nil, nil
	c.Upstreams = []trace.Upstream{{Exchange: t.Exchange, Join: trace.JoinExact, Query: t.Query, Upstreams: t.Upstreams}}
	return &c
}

// drawing is a waterfall in the making. A line has the columns label, time
// axis, offset and cost.
type drawing struct {
	painter
	out                                 bytes.Buffer
	width, labels, axis, offsets, costs int
	scale                               scale
	ticks                               map[int]bool
	reported                            bool // the cause stands above already
}

// line ends a line, without the spaces at its end.
func (d *drawing) line(s string) {
	d.out.WriteString(strings.TrimRight(s, " "))
	d.out.WriteByte('\n')
}

func (d *drawing) rows(rows []row) {
	d.scale = newScale(moments(rows), d.axis)
	d.ruler()
	for i, r := range rows {
		if r.section && r.depth == 0 && i > 0 {
			d.blank()
		}
		d.row(r)
	}
	d.legend(rows)
}

// moments are the times at which rows begin and end.
func moments(rows []row) []time.Duration {
	var all []time.Duration
	for _, r := range rows {
		if !r.note && r.mark != markNone {
			all = append(all, r.from, r.to)
		}
	}
	return all
}

// legend explains the marks that were used.
func (d *drawing) legend(rows []row) {
	used := map[mark]bool{}
	for _, r := range rows {
		used[r.mark] = true
	}
	var parts []string
	for _, m := range []struct {
		mark mark
		text string
	}{
		{markQuery, "▸ query"}, {markResponse, "◂ response"}, {markWork, "█ at work"},
		{markSilence, "░ waits in vain"}, {markSpan, "├┤ whole of the rows beneath"},
	} {
		if used[m.mark] {
			parts = append(parts, m.text)
		}
	}
	if len(d.scale.segments) > 1 {
		parts = append(parts, "╱ silence cut short")
	}
	d.out.WriteByte('\n')
	for _, line := range wrapParts(parts, "   ", d.width-1) {
		d.line(d.paint(faint, " "+line))
	}
}

// blank draws a line with nothing but the grid.
func (d *drawing) blank() {
	d.line(strings.Repeat(" ", d.labels+1) + d.grid().string(d.painter))
}

func (d *drawing) row(r row) {
	indent := strings.Repeat(" ", indentOf(r.depth))
	t := r.tone
	if r.section && t == plain {
		t = strong
	}
	if r.note {
		for i, text := range wrap(r.label, d.width-len(indent)-2) {
			if i > 0 {
				text = "  " + text
			}
			d.line(indent + d.paint(t, text))
		}
		return
	}
	label := pad(indent+fit(r.label, d.labels-len(indent)), d.labels)
	if r.section || t == bad {
		label = d.paint(t, label)
	}
	if r.mark == markNone {
		d.line(label)
		return
	}
	cost := ""
	switch {
	case r.open && r.to == r.from:
		cost = "…"
	case r.mark != markDrop && r.to > r.from:
		cost = took(r.to - r.from)
	}
	figures := padLeft(fit(offset(r.from), d.offsets), d.offsets) + " " + padLeft(fit(cost, d.costs), d.costs)
	if t == bad {
		figures = d.paint(bad, figures)
	}
	d.line(label + " " + d.bar(r).string(d.painter) + " " + figures)
}

// bar draws a row's time on the axis.
func (d *drawing) bar(r row) *cells {
	c := d.grid()
	left, right := d.scale.span(r.from, r.to)
	glyph, t := ' ', r.tone
	switch r.mark {
	case markQuery:
		glyph, t = '▸', travel
	case markResponse:
		glyph, t = '◂', travel
	case markWork:
		glyph = '█'
		if t != bad {
			t = work
		}
	case markSilence:
		glyph, t = '░', bad
	case markDrop:
		glyph, t = '✗', bad
	case markSpan:
		glyph = '─'
		if t != bad {
			t = faint
		}
	}
	for i := left; i < right; i++ {
		c.set(i, glyph, t)
		if d.scale.cutAt(i) {
			c.set(i, '╱', t)
		}
	}
	if r.mark == markSpan {
		d.spanEnds(c, left, right, t, r.open)
	}
	return c
}

func (d *drawing) spanEnds(c *cells, left, right int, t tone, open bool) {
	if right-left == 1 {
		c.set(left, '│', t)
		return
	}
	c.set(left, '├', t)
	end := '┤'
	if open {
		end = '╌'
	}
	c.set(right-1, end, t)
}

// gaps says what the drawing cannot show.
func (d *drawing) gaps(t *trace.Trace) {
	if len(t.Gaps) == 0 {
		return
	}
	d.out.WriteByte('\n')
	d.line(d.paint(warning, " GAPS") + d.paint(faint, " (not observed, or not certain)"))
	for _, g := range t.Gaps {
		d.item(warning, "   ? ", g)
	}
}

// item writes a record's text with a leader, wrapped beneath itself.
func (d *drawing) item(t tone, leader, text string) {
	for i, part := range wrap(clean(text), d.width-columns(leader)) {
		if i > 0 {
			leader = strings.Repeat(" ", columns(leader))
		}
		d.line(d.paint(t, leader) + part)
	}
}
