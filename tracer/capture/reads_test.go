package capture

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// deliveredAt is a datagram with an ID at a socket.
func deliveredAt(sock uint64, id int) Packet {
	return Packet{Kind: Delivered, Protocol: trace.TransportUDP, Time: int64(id), Sock: sock, SKB: uint64(1000*sock) + uint64(id),
		Src: client, Dst: server, Payload: withID(id), PayloadLen: len(query)}
}

// readAt is the read of one, of which the reader got so many bytes; 0: unknown ones.
func readAt(sock uint64, id, front int) Packet {
	return Packet{Kind: Read, Protocol: trace.TransportUDP, Time: int64(id) + 1000, Sock: sock, PID: 7, Comm: "reader", TID: 8,
		Payload: withID(id)[:front], PayloadLen: len(query)}
}

func newUnread(packets ...Packet) *unread {
	u := &unread{sockets: map[uint64]ends{}}
	for i := range packets {
		u.deliver(&packets[i])
	}
	return u
}

func TestReadIsTied(t *testing.T) {
	all := []Packet{deliveredAt(1, 1), deliveredAt(1, 2), deliveredAt(2, 3)}
	for _, tc := range []struct {
		name  string
		read  Packet
		exact bool
		want  int // ID of the datagram; 0: none
	}{
		{"the first", readAt(1, 1, 22), false, 1},
		{"the second, the first being lost or read by another thread", readAt(1, 2, 22), false, 2},
		{"by its header alone", readAt(1, 2, 12), false, 2},
		{"with less room than it needs", with(readAt(1, 1, 15), func(p *Packet) { p.PayloadLen = 15 }), false, 1},
		{"longer than what was delivered", with(readAt(1, 1, 22), func(p *Packet) { p.PayloadLen = 23 }), false, 0},
		{"nothing like it", readAt(1, 9, 22), true, 0},
		{"of another socket", readAt(1, 3, 22), true, 0},
		{"of a socket with none", readAt(9, 3, 22), true, 0},
		{"unknown bytes of one of two", readAt(1, 1, 0), true, 0},
		{"unknown bytes of the only one", readAt(2, 3, 0), true, 3},
		{"unknown bytes where deliveries may be missing", readAt(2, 3, 0), false, 0},
		{"unknown bytes of another length", with(readAt(2, 3, 0), func(p *Packet) { p.PayloadLen = 30 }), true, 0},
		{"too few bytes", readAt(1, 1, 11), true, 0},
	} {
		u := newUnread(all...)
		p := tc.read
		if ok := u.read(&p, tc.exact); ok != (tc.want != 0) {
			t.Errorf("%s: %t: %+v", tc.name, ok, p)
			continue
		}
		if tc.want == 0 {
			continue
		}
		if p.Kind != Read || p.Time != tc.read.Time || p.PID != 7 || p.Comm != "reader" || p.TID != 8 || p.Src != client || p.Dst != server ||
			p.SKB != all[tc.want-1].SKB || !bytes.Equal(p.Payload, withID(tc.want)) || p.PayloadLen != len(query) {
			t.Errorf("%s: %+v", tc.name, p)
		}
		again := tc.read
		if u.read(&again, tc.exact) {
			t.Errorf("%s: read twice", tc.name)
		}
		if u.count != len(all)-1 {
			t.Errorf("%s: %d are left", tc.name, u.count)
		}
	}
}

// A datagram that comes between the moment another is read and that in which its reader is seen
// makes that read ambiguous, and none after it.
func TestAmbiguousReadIsTheOnlyOne(t *testing.T) {
	at := func(p Packet, d time.Duration) Packet { p.Time = int64(d); return p }
	u := newUnread(at(deliveredAt(1, 1), 0), at(deliveredAt(1, 2), 5*time.Millisecond-time.Microsecond))
	for _, step := range []struct {
		read time.Duration
		tied bool
	}{{5 * time.Millisecond, false}, {5*time.Millisecond + 20*time.Microsecond, true}, {6 * time.Millisecond, false}} {
		p := at(readAt(1, 1, 0), step.read)
		if u.read(&p, true) != step.tied {
			t.Errorf("read after %s: tied %t", step.read, !step.tied)
		}
	}
	if later := at(deliveredAt(1, 3), 7*time.Millisecond); u.deliver(&later) {
		if p := at(readAt(1, 3, 0), 8*time.Millisecond); !u.read(&p, true) {
			t.Error("the read after it is ambiguous too")
		}
	}
}

// What a read that is not known may have got is said to be unsure, once.
func TestAmbiguousReadIsUnsure(t *testing.T) {
	u := newUnread(deliveredAt(1, 1), deliveredAt(1, 2), deliveredAt(2, 3))
	doubts := func() (all []uint16) {
		u.passDoubts(func(p *Packet) {
			if p.Kind != Read || !p.Unsure {
				t.Errorf("%+v", p)
			}
			all = append(all, binary.BigEndian.Uint16(p.Payload))
		})
		return all
	}
	for range 2 {
		if p := readAt(1, 1, 0); u.read(&p, true) {
			t.Error("an ambiguous read is tied")
		}
	}
	if got := doubts(); !slices.Equal(got, []uint16{1, 2}) {
		t.Errorf("unsure: %v", got)
	}
	u.clear()
	if got := doubts(); !slices.Equal(got, []uint16{3}) {
		t.Errorf("unsure after a loss: %v", got)
	}
}

// One that a tracepoint sees twice is one; the same query again in another buffer is two.
func TestDeliveredTwice(t *testing.T) {
	u := newUnread(deliveredAt(1, 1))
	again := deliveredAt(1, 1)
	if u.deliver(&again) {
		t.Error("passed on twice")
	}
	again.SKB++
	if !u.deliver(&again) {
		t.Error("a repeated query was taken for the first")
	}
	if u.count != 2 {
		t.Errorf("%d are unread", u.count)
	}
}

// What is not kept: what did not get into the queue after all, what is old, what there
// is no room for, and everything after a loss.
func TestUnreadIsForgotten(t *testing.T) {
	dropped := deliveredAt(1, 2)
	u := newUnread(deliveredAt(1, 1), dropped, deliveredAt(1, 3))
	u.drop(dropped.SKB)
	u.drop(0)
	wantUnread(t, u, 1, 3)
	u.expire(2 + unreadFor)
	wantUnread(t, u, 3)
	u.clear()
	wantUnread(t, u)
	for id := range maxUnread + 2 {
		p := deliveredAt(uint64(id%3), id)
		u.deliver(&p)
	}
	if u.count != maxUnread || u.forgotten != 2 {
		t.Errorf("%d are unread, %d forgotten", u.count, u.forgotten)
	}
	u.expire(int64(time.Hour))
	if wantUnread(t, u); len(u.sockets) != 0 {
		t.Errorf("%d sockets are left", len(u.sockets))
	}
}

func wantUnread(t *testing.T, u *unread, ids ...int) {
	t.Helper()
	var got []int
	for d := u.oldest; d != nil; d = d.newer {
		got = append(got, int(d.packet.Time))
	}
	if len(got) != len(ids) || u.count != len(ids) {
		t.Fatalf("unread are %v, %d in all, expected %v", got, u.count, ids)
	}
	for i := range ids {
		if got[i] != ids[i] {
			t.Errorf("unread are %v, expected %v", got, ids)
		}
	}
	if (u.oldest == nil) != (u.newest == nil) {
		t.Error("one end of an empty list is left")
	}
}

// What is kept of a long datagram is its front, and its true length.
func TestLongDatagram(t *testing.T) {
	p := deliveredAt(1, 1)
	p.Payload, p.PayloadLen = big[:maxPayload], len(big)
	u := newUnread(p)
	read := Packet{Kind: Read, Protocol: trace.TransportUDP, Sock: 1, Payload: big[:64], PayloadLen: len(big)}
	if !u.read(&read, false) || !bytes.Equal(read.Payload, big[:keptPayload]) || read.PayloadLen != len(big) {
		t.Errorf("%+v", read)
	}
}

// Whatever comes, the lists stay whole and a read is only of what was delivered.
func FuzzUnread(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 64, 65, 130, 200, 255})
	f.Fuzz(func(t *testing.T, steps []byte) {
		u := newUnread()
		alive := map[uint64]bool{}
		for i, step := range steps {
			sock, id := uint64(step>>4&3), int(step&15)
			p := deliveredAt(sock, id)
			p.Time = int64(i)
			switch step >> 6 {
			case 0, 1:
				alive[p.SKB] = true
				u.deliver(&p)
			case 2:
				r := readAt(sock, id, int(step&1)*22)
				if u.read(&r, true) && (!alive[r.SKB] || r.Sock != sock) {
					t.Fatalf("step %d: read %+v", i, r)
				}
			default:
				u.drop(p.SKB)
			}
			n := 0
			for _, queue := range u.sockets {
				for d := queue.first; d != nil; d = d.next {
					n++
				}
			}
			if n != u.count {
				t.Fatalf("step %d: %d in queues, %d in all", i, n, u.count)
			}
		}
	})
}

// A read of unknown bytes is tied to the only datagram that was delivered, where all
// that may wait beside it would have been seen.
func TestReadUnderShedding(t *testing.T) {
	const shed = int64(1e9)
	whole := shedder{ceiling: AllLookups, threshold: AllLookups}
	sampled := shedder{ceiling: thresholdOf(new(0.5)), threshold: thresholdOf(new(0.5))}
	shedding := shedder{ceiling: AllLookups, threshold: AllLookups, full: 1}
	shedding.decide(shed)
	calm := shedding
	calm.decide(shed + calmFor)
	calm.decide(shed + 2*calmFor)
	for _, tc := range []struct {
		name string
		shedder
		at   int64
		want bool
	}{
		{"all are reported", whole, shed, true},
		{"a sample is", sampled, shed, false},
		{"some are shed", shedding, shed + 1, false},
		{"some were a moment ago", calm, shed + 2*calmFor + 1, false},
		{"some were once", calm, shed + 2*calmFor + unreadFor + 1, true},
	} {
		s := &Source{
			coll: &ebpf.Collection{Programs: map[string]*ebpf.Program{bpf.DnstraceProgCgroupIngress: nil}}, shedder: tc.shedder,
			unread: *newUnread(deliveredAt(1, 1)),
		}
		p := readAt(1, 1, 0)
		p.Time = tc.at
		if got := s.atSocket(&p); got != tc.want {
			t.Errorf("%s: %v, threshold %v", tc.name, got, s.shedder.threshold)
		}
	}
}

// Somebody sends ever the same first bytes, so that each read is compared with all that waits
// in his socket: where they are too many no read is tied.
func TestReadAmongManyAlike(t *testing.T) {
	for _, n := range []int{maxLooked, maxLooked + 1} {
		u := newUnread()
		alike := func(i int) []byte {
			b := bytes.Clone(withID(1))
			b[len(b)-2], b[len(b)-1] = byte(i>>8), byte(i)
			return b
		}
		for i := range n {
			p := deliveredAt(1, i)
			p.Payload = alike(i)
			u.deliver(&p)
		}
		p := readAt(1, 1, 22)
		if p.Payload = alike(0); u.read(&p, true) != (n == maxLooked) {
			t.Errorf("one of %d alike is tied: %t", n, n != maxLooked)
		}
	}
}
