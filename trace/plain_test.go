package trace

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"b c"}`:                          `{"a":"b c"}`,
		`{"a":"größe 日本"}`:                     `{"a":"größe 日本"}`,
		"{\"a\":\"\u009b31m\x7f\"}":            `{"a":"\u009b31m\u007f"}`,
		"{\"a\":\"\u202e\u2066\u200f\u2028\"}": `{"a":"\u202e\u2066\u200f\u2028"}`,
		"{\"a\":\"\U000e0041\ufeff\u00a0\"}":   `{"a":"\udb40\udc41\ufeff\u00a0"}`,
		"{\"a\":\"\u05d0\u0661\u3164\"}":       `{"a":"\u05d0\u0661\u3164"}`,
		"{\r\"a\"\t:\n1}":                      `{ "a" : 1}`,
		"{\"a\":\"\x9b\"}":                     `{"a":"\ufffd"}`,
	} {
		if got := string(Plain([]byte(in))); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("{\"a\":\"\u009b\U000e0041\"}")
	f.Fuzz(func(t *testing.T, text string) {
		var before, after any
		if json.Unmarshal([]byte(text), &before) != nil {
			return
		}
		out := string(Plain([]byte(text)))
		if err := json.Unmarshal([]byte(out), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q: %q, %v", text, out, err)
		}
		if strings.ContainsFunc(out, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
			t.Errorf("%q: %q", text, out)
		}
	})
}
