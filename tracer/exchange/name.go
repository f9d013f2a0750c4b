package exchange

import "github.com/miekg/dns"

// maxName is how long a name is in wire format, at most (RFC 1035, section 2.3.4).
const maxName = 255

// presentation returns a name in wire format as DNS tools write it (RFC 1035,
// section 5.1), in lower case. Bytes that need it are escaped as in the plugin's
// records, which these are joined with.
func presentation(wire []byte) (string, error) {
	if name, ok := plainName(wire); ok {
		return name, nil
	}
	name, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		return "", err
	}
	return dns.CanonicalName(name), nil
}

// typeNames are the names of the types that most ask for.
var typeNames = func() (names [1 << 8]string) {
	for n := range names {
		names[n] = dns.Type(n).String()
	}
	return names
}()

// typeName returns the name of a type, or its number (RFC 3597, section 5).
func typeName(qtype uint16) string {
	if int(qtype) < len(typeNames) {
		return typeNames[qtype]
	}
	return dns.Type(qtype).String()
}

// className is typeName for a class.
func className(qclass uint16) string {
	if qclass == dns.ClassINET {
		return "IN"
	}
	return dns.Class(qclass).String()
}

// plainName does so for a name of letters, digits, hyphens and underscores,
// which almost every name is, allocating only the result.
func plainName(wire []byte) (string, bool) {
	var buf [maxName]byte
	n := 0
	for off := 0; off < len(wire); {
		length := int(wire[off])
		off++
		if length == 0 {
			return string(buf[:n]), n > 0 && off == len(wire)
		}
		if length > 63 || off+length > len(wire) || n+length+1 > len(buf) {
			return "", false
		}
		for _, c := range wire[off : off+length] {
			switch {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			case 'A' <= c && c <= 'Z':
				c += 'a' - 'A'
			default:
				return "", false
			}
			buf[n] = c
			n++
		}
		buf[n] = '.'
		n++
		off += length
	}
	return "", false
}
