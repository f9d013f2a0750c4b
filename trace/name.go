package trace

import (
	"errors"
	"strings"

	"github.com/miekg/dns"
)

// PackName puts an absolute name in presentation format into b in wire format, not compressed
// (RFC 1035, section 3.1), and returns its length. Nearly every name has neither escapes nor
// labels that are too long, and takes a quarter of the time that package dns takes.
func PackName(name string, b []byte) (int, error) {
	if n := packPlain(name, b); n > 0 {
		return n, nil
	}
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err == nil && n > len(b) { // in miekg/dns 1.1.68
		err = errors.New("the name is too long")
	}
	return n, err
}

// packPlain does so for a name without escapes; 0 says that it is none, or wrong.
func packPlain(name string, b []byte) int {
	if len(name) < 2 || len(name) >= min(len(b), 255) || name[len(name)-1] != '.' || strings.IndexByte(name, '\\') >= 0 {
		return 0
	}
	length := 0 // where that of the label is
	for i := range len(name) {
		if name[i] != '.' {
			b[i+1] = name[i]
			continue
		}
		n := i - length
		if n == 0 || n > 63 {
			return 0
		}
		b[length] = byte(n)
		length = i + 1
	}
	b[length] = 0
	return length + 1
}
