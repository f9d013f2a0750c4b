package oneline

import (
	"fmt"
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
		"\u05d0\u05d1 7\u0661\u3164":       "?? 7??",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
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
		if got := Shorten(tc.in, tc.limit); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
		}
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("a\x1b[2J\nb", 4)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, limit%1000)
		got := Shorten(s, limit)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\n\r\x00") || len(got) > limit+len("…") {
			t.Errorf("%q", got)
		}
	})
}

// However an address is written wrong, or in the wrong place, its password is not repeated.
func TestMessage(t *testing.T) {
	for in, want := range map[string]string{
		`output "http://user:secret@host": expected`:       `output "http://***@host": expected`,
		"open otlp:https://secret@host:4317/x: none":       "open otlp:https://***@host:4317/x: none",
		"user:secret@host:3100":                            "***@host:3100",
		"http://user:se/cret@host, http://u:p@other":       "http://***@host, http://***@other",
		"http://user:sec@ret@host/a":                       "http://***@host/a",
		"http://user:se%zz?cr#et@host":                     "http://***@host",
		`Get "https://user:***@127.0.0.1:9/api": refused`:  `Get "https://***@127.0.0.1:9/api": refused`,
		"Loki at http://loki:3100: 500: mail ops@example":  "Loki at http://loki:3100: 500: mail ops@example",
		"service user@1000.service of 10.0.0.1:53, 1:2@x":  "service user@1000.service of 10.0.0.1:53, ***@x",
		`proxy "http://user:my \"secret@host:1": x`:        `proxy "http://***@host:1": x`,
		"http://user:it's a/secret@host; http://a:b c@d":   "http://***@host; http://***@d",
		"at http://[::1]:3100/x: mail ops@example":         "at http://[::1]:3100/x: mail ops@example",
		"at http://loki:3100, http://user:a b@host":        "at http://loki:3100, http://***@host",
		"dnstrace: ready\n":                                "dnstrace: ready ",
		"/run/user@1.service/a.sock: permission denied":    "/run/user@1.service/a.sock: permission denied",
		"docker://REGISTRY/dnstrace@sha256:0123 is absent": "docker://REGISTRY/dnstrace@sha256:0123 is absent",
	} {
		if got := Message(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// A message may quote a line of a file that somebody else wrote: it is short all the same,
// and soon there.
func TestLongMessage(t *testing.T) {
	for _, of := range []string{"//a:b", "user:x@", "\x9b", "a://b:c@"} {
		if n := len(Message(strings.Repeat(of, 1<<20))); n > 2*maxMessage {
			t.Errorf("%q: %d bytes", of, n)
		}
	}
}

// Where a reason is truncated, no part of a password is left of which the end is not seen.
func TestReason(t *testing.T) {
	err := fmt.Errorf("proxy: invalid address %q: refused", "http://user:secret"+strings.Repeat("secret", 100)+"@host")
	if got := Reason(err, 60); strings.Contains(got, "secret") || !strings.HasPrefix(got, "proxy: invalid") {
		t.Error(got)
	}
}
