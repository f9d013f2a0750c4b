package render

import (
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/width"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// took formats a duration with three digits and its unit.
func took(d time.Duration) string { return trace.Seconds(d).String() }

// offset formats a moment in milliseconds, so that a column of them compares at
// a glance.
func offset(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	decimals := 3
	for limit := 1e4; math.Abs(ms) >= limit && decimals > 0; limit *= 10 {
		decimals--
	}
	return strconv.FormatFloat(ms, 'f', decimals, 64)
}

// tickLabel formats the label of a tick, in the unit that suits the whole axis.
func tickLabel(at, total time.Duration) string {
	unit, name := time.Microsecond, "µs"
	switch {
	case at == 0:
		return "0"
	case total >= time.Second:
		unit, name = time.Second, "s"
	case total >= time.Millisecond:
		unit, name = time.Millisecond, "ms"
	}
	return strconv.FormatFloat(float64(at)/float64(unit), 'f', -1, 64) + " " + name
}

// clean makes a string from a record safe to show.
func clean(s string) string { return oneline.Text(s) }

// columns returns how wide clean text is on a terminal.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Fit makes a text safe to show, and cuts it if it is wider than a terminal.
func Fit(s string, limit int) string { return fit(clean(s), limit) }

// fit cuts text that is too wide, with an ellipsis at its end.
func fit(s string, limit int) string {
	if columns(s) <= limit {
		return s
	}
	if limit < 1 {
		return ""
	}
	if limit < 2 {
		return "…"
	}
	return s[:cutAt(s, limit-1)] + "…"
}

// fitMiddle cuts text that is too wide in its middle: the front of a name says
// what it is, its end whose.
func fitMiddle(s string, limit int) string {
	if columns(s) <= limit || limit < 5 {
		return fit(s, limit)
	}
	tail := []rune(s)
	n := 0
	i := len(tail)
	for i > 0 && n+runeColumns(tail[i-1]) <= (limit-1)/2 {
		i--
		n += runeColumns(tail[i])
	}
	return fit(s, limit-n) + string(tail[i:])
}

// cutAt returns how many bytes of text fit, at least those of one rune.
func cutAt(s string, limit int) int {
	n := 0
	for i, r := range s {
		if n += runeColumns(r); n > limit && i > 0 {
			return i
		}
	}
	return len(s)
}

// pad fills text up with spaces.
func pad(s string, to int) string {
	return s + strings.Repeat(" ", max(0, to-columns(s)))
}

// padLeft fills text up with spaces before it.
func padLeft(s string, to int) string {
	return strings.Repeat(" ", max(0, to-columns(s))) + s
}

// wrap breaks text into lines of at most limit columns, between words where it
// can.
func wrap(s string, limit int) []string {
	var lines []string
	line := ""
	for _, word := range words(s) {
		for columns(word) > limit {
			if line != "" {
				lines = append(lines, line)
				line = ""
			}
			cut := cutAt(word, limit)
			lines = append(lines, word[:cut])
			word = word[cut:]
		}
		switch {
		case line == "":
			line = word
		case columns(line)+1+columns(word) <= limit:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// words are those of a text; a number stays with its unit of time.
func words(s string) []string {
	var all []string
	for _, word := range strings.Fields(s) {
		if n := len(all); n > 0 && isUnit(word) && all[n-1][len(all[n-1])-1] >= '0' && all[n-1][len(all[n-1])-1] <= '9' {
			all[n-1] += " " + word
			continue
		}
		all = append(all, word)
	}
	return all
}

func isUnit(word string) bool {
	switch strings.TrimRight(word, ".,;:)") {
	case "s", "ms", "µs", "ns":
		return true
	}
	return false
}

// wrapParts joins parts into lines of at most limit columns; a part that is too
// wide itself is broken between its words.
func wrapParts(parts []string, separator string, limit int) []string {
	var lines []string
	for _, part := range parts {
		if n := len(lines); n > 0 && columns(lines[n-1])+columns(separator)+columns(part) <= limit {
			lines[n-1] += separator + part
			continue
		}
		lines = append(lines, wrap(part, limit)...)
	}
	return lines
}
