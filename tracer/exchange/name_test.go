package exchange

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Names are packed as package dns does, or not at all.
func TestPackName(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "."
	for _, name := range []string{
		"", ".", "a.", "a", "example.com.", "EXAMPLE.com.", "a..b.", "..", ".a.", `a\.b.`, `a\032b.`, `\\.`, "_dns-sd._udp.local.", "ä.", "a b.",
		label + ".", label + "a.", long, long + strings.Repeat("a", 61) + ".", long + strings.Repeat("a", 62) + ".", long + label + ".",
	} {
		var got, want [maxName]byte
		n, err := packName(name, got[:])
		m, refused := dns.PackDomainName(name, want[:], 0, nil, false)
		if (err == nil) != (refused == nil) || err == nil && !bytes.Equal(got[:n], want[:m]) {
			t.Errorf("%q: got % x, %v, want % x, %v", name, got[:n], err, want[:m], refused)
		}
	}
}
