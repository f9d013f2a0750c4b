package oneline

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"example.com.":                     "example.com.",
		"größe 日本":                         "größe 日本",
		"a\nb\tc":                          "a b c",
		"\x1b[31mred\x1b]0;title\a":        "?[31mred?]0;title?",
		"\r\x00\x7f\u009b\u202ebidi\u200b": "?????bidi?",
		"\xff\xfe":                         "??",
		"e\u0301":                          "e?",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int
		want  string
	}{
		{" too\r\nbusy\n\n now ", 20, "too busy now"},
		{"ok\ndnstrace: ready", 30, "ok dnstrace: ready"},
		{"abcdef", 3, "abc…"},
		{"ää", 3, "ä…"},
		{strings.Repeat(" ", 100) + "far", 3, "…"},
		{"", 3, ""},
		{"日本", 0, "…"},
	} {
		if got := Words(tc.in, tc.limit); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add("a\x1b[2J\nb", 4)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, limit%1000)
		got := Words(s, limit)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\n\r\x00") || len(got) > limit+len("…") {
			t.Errorf("%q", got)
		}
	})
}
