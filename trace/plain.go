package trace

import (
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Plain returns a line of JSON without a character that does something else than be seen:
// JSON lets stand what terminals obey, as U+009B, which begins escape sequences, and what
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
		case r == utf8.RuneError && size == 1 || !unicode.IsPrint(r): // the former is no UTF-8
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
