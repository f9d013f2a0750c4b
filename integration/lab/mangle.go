package lab

import (
	"bytes"
	"encoding/binary"
)

// Ways to spoil an answer that is packed without compression of names, as a Server packs
// it, and has one question: for Behaviour.Mangle.

// questionAt is where the question starts, after the header (RFC 1035, section 4.1.1).
const questionAt = 12

// questionEnd is where the question of a message ends.
func questionEnd(wire []byte) int {
	return questionAt + bytes.IndexByte(wire[questionAt:], 0) + 1 + 4
}

// Malformed announces five answers and ends in the middle of the first.
func Malformed(wire []byte) []byte {
	end := questionEnd(wire)
	m := append(bytes.Clone(wire[:end]), 0xc0, questionAt, 0, 1)
	binary.BigEndian.PutUint16(m[6:], 5)
	return m
}

// Cut leaves out all but the first two bytes of what follows the question.
func Cut(wire []byte) []byte { return wire[:min(len(wire), questionEnd(wire)+2)] }

// OtherID answers with another ID.
func OtherID(wire []byte) []byte {
	m := bytes.Clone(wire)
	m[0] ^= 0x55
	return m
}

// OtherQuestion answers another question: the first letter of the name is another one.
func OtherQuestion(wire []byte) []byte {
	m := bytes.Clone(wire)
	m[questionAt+1] ^= 0x02
	return m
}

// LowerCase loses the case of the letters in the question.
func LowerCase(wire []byte) []byte {
	m := bytes.Clone(wire)
	end := questionEnd(m) - 4
	copy(m[questionAt:end], bytes.ToLower(m[questionAt:end]))
	return m
}
