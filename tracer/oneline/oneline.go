// Package oneline sanitizes untrusted text for a line of a terminal or a log: a name, a
// server's reason or an error may hold anything, escape sequences and the beginning of
// another line included.
package oneline

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dnstrace/dnstrace/trace"
)

// Text returns s on one line, with ? in the place of every character that does
// something else than be seen ([trace.IsPlain]), and of marks that are put on another.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == unicode.ReplacementChar || !trace.IsPlain(r) || unicode.Is(unicode.M, r):
			return '?'
		}
		return r
	}, s)
}

// beforeAt is what stands in a word before its last @.
var beforeAt = regexp.MustCompile("[^\\s\"'`]*@")

// userOf is the user in a URL, or its host before a port.
var userOf = regexp.MustCompile(`//[^\s/:@\[\]]*:`)

// port is that, at the beginning.
var port = regexp.MustCompile("^[0-9]{1,5}($|[\\s/:\"'`(),;?#])")

// withoutPasswords returns a message without what stands in its URLs between user and host:
// a password that should have been escaped may hold spaces, quotes and all else.
func withoutPasswords(s string) string {
	var out strings.Builder
	for {
		at := userOf.FindStringIndex(s)
		if at == nil {
			out.WriteString(s)
			return out.String()
		}
		rest := s[at[1]:]
		next := strings.Index(rest, "://")
		if next < 0 {
			next = len(rest)
		}
		if end := strings.LastIndexByte(rest[:next], '@'); end >= 0 && !port.MatchString(rest) {
			out.WriteString(s[:at[0]] + "//***@")
			s = rest[end+1:]
			continue
		}
		out.WriteString(s[:at[1]])
		s = rest
	}
}

// maxMessage bounds a message in bytes: it may quote what others wrote.
const maxMessage = 16 << 10

// Message returns a message for people as [Text] does, of at most 16 KiB, and without what
// may be a password: an address that is wrong, or stands where none belongs, may hold one.
func Message(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "…"
	}
	return Text(beforeAt.ReplaceAllStringFunc(withoutPasswords(s), func(word string) string {
		scheme, user, isURL := strings.Cut(word, "//")
		if isURL {
			scheme += "//"
		} else {
			scheme, user = "", word
		}
		// User and password, or a user alone before a host (RFC 3986, section 3.2.1).
		if strings.Contains(user, ":") || isURL && !strings.ContainsAny(user, "/?#") {
			return scheme + "***@"
		}
		return word
	}))
}

// Reason returns the text of an error as [Message] and then [Shorten] do.
func Reason(err error, limit int) string { return Shorten(Message(err.Error()), limit) }

// Shorten returns s as [Text] does, with white space collapsed, and of at most limit bytes;
// an ellipsis beyond them stands for what it leaves out.
func Shorten(s string, limit int) string {
	long := len(s) > 4*limit // more than that, of spaces for example, is not looked at
	if long {
		s = s[:4*limit]
	}
	s = Text(strings.Join(strings.Fields(s), " "))
	if len(s) <= limit {
		if long {
			s += "…"
		}
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}
