package listener

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
)

const listeningBytes = int(unsafe.Sizeof(bpf.ListenersListening{}))

// parse reads what the iterator wrote. boot is when the monotonic clock was zero.
func parse(raw []byte, boot time.Time) map[place][]socket {
	found := map[place][]socket{}
	for ; len(raw) >= listeningBytes; raw = raw[listeningBytes:] {
		var l bpf.ListenersListening
		if _, err := binary.Decode(raw, binary.NativeEndian, &l); err != nil {
			break // not with as many bytes
		}
		at := place{l.Netns, l.Port}
		found[at] = append(found[at], socket{
			addr: address(&l), v6only: l.V6only != 0, pid: int(l.Tgid), comm: comm(l.Comm),
			cgroup: l.Cgroup, started: boot.Add(time.Duration(l.Started)),
		})
	}
	return found
}

func address(l *bpf.ListenersListening) netip.Addr {
	if l.Family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(l.Addr[:4]))
	}
	return netip.AddrFrom16(l.Addr).Unmap()
}

func comm(c [16]int8) string {
	var b [16]byte
	for i := range c {
		b[i] = byte(c[i])
	}
	name, _, _ := bytes.Cut(b[:], []byte{0})
	return string(name)
}
