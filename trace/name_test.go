package trace

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzPackName checks that the short way to pack a name gives what the library
// gives, and its errors the empty name.
func FuzzPackName(f *testing.F) {
	long := strings.Repeat("a", 63) + "."
	for _, name := range []string{
		"", ".", "..", "a", "a.", "a..", ".a.", "www.Example.org.", `a\.b.example.`, `\000.`, `a\\.`, "ä.example.", "a\x00b.",
		long, "a" + long, strings.Repeat(long, 4), long + long + long + strings.Repeat("a", 61) + ".", strings.Repeat("a.", 127), strings.Repeat("a.", 128),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		var want, got [256]byte
		n, err := dns.PackDomainName(name, want[:], 0, nil, false)
		if err != nil || n > len(want) {
			n = 0
		}
		m, refused := PackName(name, got[:])
		if refused != nil {
			m = 0
		}
		if !bytes.Equal(got[:m], want[:n]) {
			t.Errorf("%q is packed as %x, by the library as %x (%v, %v)", name, got[:m], want[:n], refused, err)
		}
	})
}
