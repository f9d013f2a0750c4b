package render

import (
	"io"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

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

// NewTable returns a table that writes to w, with the columns of those names, or
// without any, with those that have room. A Width of 0 is that of an output
// which is no terminal: it has room for every usual column, and the last one is
// never cut. The error names a column that does not exist.
func NewTable(w io.Writer, o Options, names ...string) (*Table, error) {
	t := &Table{w: w, painter: painter(o.Color)}
	width := pipeWidth
	if o.Width > 0 {
		t.limit = max(o.Width, MinWidth)
		width = t.limit
	}
	if len(names) == 0 {
		for _, c := range usualColumns() {
			if width >= c.least {
				t.columns = append(t.columns, c)
			}
		}
	}
	for _, name := range names {
		c, err := columnNamed(name)
		if err != nil {
			return nil, err
		}
		t.columns = append(t.columns, c)
	}
	t.grow(width)
	return t, nil
}

// grow shares what is left of the width among the columns that can use it.
func (t *Table) grow(width int) {
	used, growing := 0, 0
	for i, c := range t.columns {
		if c.name == findingsName && i < len(t.columns)-1 {
			t.columns[i].width = findingsFull
			c.width = findingsFull
		}
		used += c.width + 2
		if c.grows {
			growing++
		}
	}
	spare := width - used
	if t.columns[len(t.columns)-1].name == findingsName && width >= findingsFrom {
		spare -= max(findingsLeast, min(findingsFull, spare-6*growing))
	}
	for i := range t.columns {
		if c := &t.columns[i]; c.grows && spare > 0 {
			c.width += min(spare/growing, 30)
		}
	}
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
			room = max(columns(text), c.width)
			if t.limit > 0 {
				room = max(min(room, t.limit-used), 0)
			}
		} else if t.limit > 0 {
			room = max(min(room, t.limit-used), 0)
		}
		if c.name == findingsName && columns(text) > room {
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
		indent := strings.Repeat(" ", min(t.columns[0].width, 12)) + "  └ "
		b.WriteString(indent + t.painter.paint(bad, fit(below, t.limit-columns(indent))) + "\n")
	}
}
