package render

import "strings"

// tone is the meaning that a colour repeats; nothing is said by colour alone.
type tone int

const (
	plain   tone = iota
	strong       // what a section or a table begins with
	faint        // what can be passed over
	travel       // a packet on its way
	work         // somebody working
	good         // it went well
	warning      // a finding, or translation of addresses
	bad          // it was lost, or failed
)

// escapes holds the colours of 16-colour terminals, which every theme keeps
// readable.
var escapes = map[tone]string{
	strong: "\x1b[1m", faint: "\x1b[2m", travel: "\x1b[36m", work: "\x1b[34m", good: "\x1b[32m", warning: "\x1b[33m", bad: "\x1b[1;31m",
}

const reset = "\x1b[0m"

// painter puts colours around text, or leaves it alone.
type painter bool

func (p painter) paint(t tone, s string) string {
	escape, ok := escapes[t]
	if !bool(p) || !ok || strings.TrimSpace(s) == "" {
		return s
	}
	return escape + s + reset
}

// cells is a stretch of a line whose columns have tones of their own.
type cells struct {
	runes []rune
	tones []tone
}

func newCells(width int) *cells {
	c := &cells{runes: make([]rune, width), tones: make([]tone, width)}
	for i := range c.runes {
		c.runes[i] = ' '
	}
	return c
}

func (c *cells) set(column int, r rune, t tone) {
	if column >= 0 && column < len(c.runes) {
		c.runes[column], c.tones[column] = r, t
	}
}

// text writes a label, unless it would touch another one.
func (c *cells) text(column int, s string, t tone) bool {
	runes := []rune(s)
	if column < 0 || column+len(runes) > len(c.runes) {
		return false
	}
	for i := max(0, column-1); i < min(len(c.runes), column+len(runes)+1); i++ {
		if c.runes[i] != ' ' {
			return false
		}
	}
	for i, r := range runes {
		c.set(column+i, r, t)
	}
	return true
}

func (c *cells) string(p painter) string {
	var b strings.Builder
	for from := 0; from < len(c.runes); {
		to := from + 1
		for to < len(c.runes) && c.tones[to] == c.tones[from] {
			to++
		}
		b.WriteString(p.paint(c.tones[from], string(c.runes[from:to])))
		from = to
	}
	return b.String()
}
