package trace

import (
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
)

// IsPlain tells whether a character is displayed in its place, and does nothing else: no
// terminal obeys it, and it moves none of those around it. A letter that is written from
// right to left (UAX #9) puts numbers and signs beside it, such as those of the next column,
// into another order.
func IsPlain(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	if !unicode.IsPrint(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) {
		return false
	}
	p, _ := bidi.LookupRune(r)
	switch p.Class() {
	case bidi.R, bidi.AL, bidi.AN:
		return false
	}
	return true
}

// Plain returns a line of JSON of which every character is plain ([IsPlain]): JSON lets
// stand what terminals obey, as U+009B, which begins escape sequences, and what
// changes the order of text. It is the same JSON; a line without such is returned as it is.
func Plain(line []byte) []byte {
	for i, c := range line {
		if c < ' ' || c > '~' {
			return plain(line, i)
		}
	}
	return line
}

func plain(line []byte, from int) []byte {
	out := append(make([]byte, 0, len(line)+32), line[:from]...)
	for from < len(line) {
		r, size := utf8.DecodeRune(line[from:])
		switch {
		case r < ' ': // between two tokens, since strings have none
			out = append(out, ' ')
		case r == utf8.RuneError && size == 1 || !IsPlain(r): // the former is no UTF-8
			for _, unit := range utf16.AppendRune(nil, r) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		default:
			out = append(out, line[from:from+size]...)
		}
		from += size
	}
	return out
}
