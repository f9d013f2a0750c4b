package render

import (
	"strings"
	"time"
)

// grid draws the lines beneath the ticks, which bars cover.
func (d *drawing) grid() *cells {
	c := newCells(d.axis)
	for x := range d.ticks {
		c.set(x, '┊', faint)
	}
	return c
}

// ruler draws the time axis with its labels.
func (d *drawing) ruler() {
	labels, line := newCells(d.axis), newCells(d.axis)
	for i := range d.axis {
		line.set(i, '─', faint)
	}
	d.ticks = map[int]bool{}
	tick := func(x, at int, label string) bool {
		if !labels.text(at, label, faint) {
			return false
		}
		line.set(x, '┬', faint)
		d.ticks[x] = true
		return true
	}
	segments := d.scale.segments
	for _, g := range segments {
		if !g.cut {
			continue
		}
		for i := g.left; i < g.right; i++ {
			if d.scale.cutAt(i) {
				line.set(i, '╱', faint)
			}
		}
		label := "╱" + took(g.to-g.from) + "╱"
		labels.text(max(0, min(g.left+(g.right-g.left-columns(label))/2, d.axis-columns(label))), label, warning)
	}
	tick(0, 0, "0")
	if len(segments) == 1 {
		total := segments[0].to - segments[0].from
		step := tickStep(total, d.axis)
		for i := range d.axis {
			at := step * time.Duration(i+1)
			if at > total || at <= 0 {
				break
			}
			x := min(int(d.scale.position(segments[0].from+at)), d.axis-1)
			tick(x, x, tickLabel(at, total))
		}
	} else {
		last := segments[len(segments)-1]
		for _, label := range []string{offset(last.to) + " ms", took(last.to)} {
			if tick(d.axis-1, d.axis-columns(label), label) {
				break
			}
		}
	}
	head := pad(" WHERE", d.labels) + " "
	d.line(d.paint(faint, head) + labels.string(d.painter) + " " + d.paint(faint, padLeft("AT ms", d.offsets)+" "+padLeft("TOOK", d.costs)))
	d.line(d.paint(faint, " "+strings.Repeat("─", d.labels-1)) + "─" + line.string(d.painter) + d.paint(faint, strings.Repeat("─", 1+d.offsets+1+d.costs)))
}

// tickStep returns a round step that leaves room for the labels.
func tickStep(total time.Duration, width int) time.Duration {
	const room = 7 // columns from one label to the next
	least := time.Duration(float64(total) * room / float64(width))
	for step := time.Nanosecond; ; step *= 10 {
		for _, factor := range []time.Duration{1, 2, 5} {
			if step*factor >= least && step*factor > 0 {
				return step * factor
			}
		}
		if step > time.Hour {
			return max(total, 1)
		}
	}
}
