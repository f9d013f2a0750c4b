package integration

import (
	"bytes"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// header is a DNS header with the counts as told, whatever follows.
func header(id int, flags int, counts ...int) []byte {
	b := slices.Concat(be16(id), be16(flags))
	for _, n := range counts {
		b = append(b, be16(n)...)
	}
	return b
}

const aQuestion = "\x07hostile\x04test\x00\x00\x01\x00\x01"

// hostileMessages were made to break parsers; each is sent as a query and, with
// QR set, as a response that nobody asked for.
var hostileMessages = map[string][]byte{
	"nothing":                       {},
	"one byte":                      {0},
	"a header alone":                header(1, 0x0100, 1, 0, 0, 0),
	"no question":                   header(2, 0x0100, 0, 0, 0, 0),
	"1,000 questions":               append(header(3, 0x0100, 1000, 0, 0, 0), bytes.Repeat([]byte(aQuestion), 80)...),
	"1,000 questions, none there":   header(4, 0x0100, 1000, 0, 0, 0),
	"65,535 of everything":          append(header(5, 0x0100, 65535, 65535, 65535, 65535), aQuestion...),
	"a name that points to itself":  append(header(6, 0x0100, 1, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1),
	"names that point to another":   append(header(7, 0x0100, 1, 0, 0, 0), 0xc0, 14, 0xc0, 12, 0, 1, 0, 1),
	"a name that points ahead":      append(header(8, 0x0100, 1, 0, 0, 0), 0xc0, 0xff, 0, 1, 0, 1),
	"an alias that points to it":    append(header(9, 0x0100, 1, 1, 0, 0), aQuestion+"\xc0\x1e\x00\x05\x00\x01\x00\x00\x00\x01\x00\x02\xc0\x1e"...),
	"127 labels":                    append(header(10, 0x0100, 1, 0, 0, 0), string(bytes.Repeat([]byte{1, 'a'}, 127))+"\x00\x00\x01\x00\x01"...),
	"400 labels":                    append(header(11, 0x0100, 1, 0, 0, 0), string(bytes.Repeat([]byte{1, 'a'}, 400))+"\x00\x00\x01\x00\x01"...),
	"labels without an end":         append(header(12, 0x0100, 1, 0, 0, 0), bytes.Repeat([]byte{63, 1}, 600)...),
	"a label of 64 bytes":           append(header(13, 0x0100, 1, 0, 0, 0), append([]byte{64}, make([]byte, 100)...)...),
	"a label that is cut":           append(header(14, 0x0100, 1, 0, 0, 0), 20, 'a', 'b'),
	"a name of no letters":          append(header(15, 0x0100, 1, 0, 0, 0), slices.Concat([]byte{63}, bytes.Repeat([]byte{0xff}, 63), []byte{4, 0, '"', '\\', '\n', 0, 0, 1, 0, 1})...),
	"an option beyond its record":   append(header(16, 0x0100, 1, 0, 0, 1), aQuestion+"\x00\x00\x29\x04\x00\x00\x00\x00\x00\x00\x06\xff\xdc\xff\xff\x00\x01"...),
	"an option record of 65,535":    append(header(17, 0x0100, 1, 0, 0, 1), aQuestion+"\x00\x00\x29\x04\x00\x00\x00\x00\x00\xff\xff"...),
	"two option records":            append(header(18, 0x0100, 1, 0, 0, 2), aQuestion+"\x00\x00\x29\x04\x00\x00\x00\x00\x00\x00\x00"+"\x00\x00\x29\x04\x00\x00\x00\x00\x00\x00\x00"...),
	"an opcode that there is not":   append(header(19, 0x7900, 1, 0, 0, 0), aQuestion...),
	"every bit set":                 bytes.Repeat([]byte{0xff}, 512),
	"a type and class of their own": append(header(20, 0x0100, 1, 0, 0, 0), "\x07hostile\x04test\x00\xff\xfe\xff\xfd"...),
}

// framed puts a message's length in front, as TCP has it.
func framed(message []byte) []byte { return append(be16(len(message)), message...) }

// question packs a query.
func question(t *testing.T, name string, id uint16) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Id = id
	return packed(t, m)
}

func packed(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// response makes a copy of a message with QR set, where it has a header.
func response(message []byte) []byte {
	b := bytes.Clone(message)
	if len(b) > 2 {
		b[2] |= 0x80
	}
	return b
}
