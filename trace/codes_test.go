package trace

import "testing"

// 16 means two things: in the header and OPT of a message it is one of them.
func TestRCodeName(t *testing.T) {
	for code, want := range map[int]string{0: "NOERROR", 3: "NXDOMAIN", 4: "NOTIMP", 9: "NOTAUTH", 16: "BADVERS", 23: "BADCOOKIE", 4000: "4000"} {
		if got := RCodeName(code); got != want {
			t.Errorf("%d: %s, want %s", code, got, want)
		}
	}
}

func TestOperation(t *testing.T) {
	for opcode, want := range map[int]string{0: "", 2: "STATUS", 4: "NOTIFY", 5: "UPDATE", 6: "opcode 6"} {
		if got := (&DNS{Opcode: opcode}).Operation(); got != want {
			t.Errorf("%d: %q, want %q", opcode, got, want)
		}
	}
}
