package exchange

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// framed puts the length in front (RFC 1035, section 4.2.2).
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

func tcp(seq uint32, flags uint8) func(*capture.Packet) {
	return func(p *capture.Packet) {
		p.Protocol, p.TCPSeq, p.TCPFlags = trace.TransportTCP, seq, flags
	}
}

// segments feeds the pieces of both directions, each seen at client and server.
func (f *feed) segments(syn bool, queries, responses [][]byte) {
	const clientISN, serverISN = 0xfffffff0, 77 // wraps within the first message
	if syn {
		f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(clientISN, capture.FlagSYN))
		f.packet(capture.RX, serverNS, 2, pod, server, nil, tcp(clientISN, capture.FlagSYN))
		f.packet(capture.TX, nodeNS, 6, pod, server, nil, tcp(clientISN, capture.FlagSYN), withNAT(dnat))
		f.packet(capture.TX, serverNS, 2, server, pod, nil, tcp(serverISN, capture.FlagSYN|0x10))
		f.packet(capture.RX, podNS, 2, service, pod, nil, tcp(serverISN, capture.FlagSYN|0x10))
	}
	seq := uint32(clientISN + 1)
	for _, b := range queries {
		f.packet(capture.TX, podNS, 2, pod, service, b, tcp(seq, 0))
		f.packet(capture.TX, nodeNS, 6, pod, server, b, tcp(seq, 0), withNAT(dnat))
		f.packet(capture.RX, serverNS, 2, pod, server, b, tcp(seq, 0))
		seq += uint32(len(b))
	}
	seq = serverISN + 1
	for _, b := range responses {
		f.packet(capture.TX, serverNS, 2, server, pod, b, tcp(seq, 0))
		f.packet(capture.RX, podNS, 2, service, pod, b, tcp(seq, 0))
		seq += uint32(len(b))
	}
}

func oneByOne(b []byte) [][]byte {
	var pieces [][]byte
	for i := range b {
		pieces = append(pieces, b[i:i+1])
	}
	return pieces
}

func TestTCPSegments(t *testing.T) {
	q1, q2 := framed(query(t, "one.example.", 1)), framed(query(t, "two.example.", 2))
	r1, r2 := framed(response(t, "one.example.", 1, 0)), framed(response(t, "two.example.", 2, 3))
	both, answers := append(append([]byte{}, q1...), q2...), append(append([]byte{}, r2...), r1...)
	for _, tc := range []struct {
		name               string
		syn                bool
		queries, responses [][]byte
	}{
		{"a message a segment", true, [][]byte{q1, q2}, [][]byte{r1, r2}},
		{"two in a segment, out of order", true, [][]byte{both}, [][]byte{answers}},
		{"length apart", true, [][]byte{q1[:2], q1[2:], q2[:2], q2[2:]}, [][]byte{r1[:2], r1[2:], r2}},
		{"length split", true, [][]byte{q1[:1], both[1:]}, [][]byte{r1[:1], r1[1:], r2}},
		{"a byte a segment", true, oneByOne(both), oneByOne(answers)},
		{"begun before we looked", false, [][]byte{q1, q2}, [][]byte{r1, r2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			f.segments(tc.syn, tc.queries, tc.responses)
			f.after(time.Second)
			if len(f.got) != 2 {
				t.Fatalf("%d exchanges, expected 2; stats %+v", len(f.got), f.table.Stats())
			}
			for _, ex := range f.got {
				want := map[string]string{"one.example.": "NOERROR", "two.example.": "NXDOMAIN"}[ex.QName]
				if ex.RCode != want || ex.Outcome != trace.OutcomeAnswered || ex.Protocol != "tcp" || ex.ServerIP != service.Addr() {
					t.Errorf("%s: %s %s %s to %s", ex.QName, ex.Outcome, ex.RCode, ex.Protocol, ex.ServerIP)
				}
				if ex.NAT == nil || ex.NAT.ServerIP != server.Addr() || len(ex.Path) != 5 || ex.Transmissions != 1 {
					t.Errorf("%s: translated %+v, %d sightings, %d transmissions", ex.QName, ex.NAT, len(ex.Path), ex.Transmissions)
				}
			}
		})
	}
}

// A long response is captured in part; the stream goes on behind it.
func TestTCPLongMessage(t *testing.T) {
	long := framed(append(response(t, "long.example.", 1, 0), make([]byte, 9000)...))
	next := framed(response(t, "next.example.", 2, 0))
	f := newFeed(t)
	f.segments(true, [][]byte{framed(query(t, "long.example.", 1)), framed(query(t, "next.example.", 2))}, nil)
	cut := func(p *capture.Packet) { p.Payload = p.Payload[:min(len(p.Payload), 2048)] }
	f.packet(capture.RX, podNS, 2, service, pod, long, tcp(78, 0), cut)
	f.packet(capture.RX, podNS, 2, service, pod, next, tcp(78+uint32(len(long)), 0))
	f.after(time.Second)
	if len(f.got) != 2 || f.got[0].Outcome != trace.OutcomeAnswered || f.got[1].Outcome != trace.OutcomeAnswered || *f.got[0].ResponseSize != len(long)-2 {
		t.Fatalf("%+v; stats %+v", f.got, f.table.Stats())
	}
}

// A lost segment costs the messages in it, not those behind it.
func TestTCPGap(t *testing.T) {
	q := [][]byte{framed(query(t, "a.example.", 1)), framed(query(t, "b.example.", 2)), framed(query(t, "c.example.", 3))}
	f := newFeed(t)
	seq := uint32(100)
	for i, b := range q {
		if i != 1 {
			f.packet(capture.TX, podNS, 2, pod, service, b, tcp(seq, 0))
		}
		seq += uint32(len(b))
	}
	f.after(6 * time.Second)
	if len(f.got) != 2 || f.got[0].QName != "a.example." || f.got[1].QName != "c.example." {
		t.Fatalf("%+v", f.got)
	}
}

func TestTCPPortIsUsedAgain(t *testing.T) {
	f := newFeed(t)
	for i, name := range []string{"first.example.", "second.example."} {
		isn := uint32(1000 + i*500000)
		f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(isn, capture.FlagSYN))
		f.packet(capture.TX, podNS, 2, pod, service, framed(query(t, name, 1)), tcp(isn+1, 0))
		f.packet(capture.RX, podNS, 2, service, pod, nil, tcp(isn+7, capture.FlagSYN|0x10))
		f.packet(capture.RX, podNS, 2, service, pod, framed(response(t, name, 1, 0)), tcp(isn+8, 0))
		f.after(time.Second)
	}
	if len(f.got) != 2 || f.got[1].QName != "second.example." || f.got[1].Outcome != trace.OutcomeAnswered {
		t.Fatalf("%+v", f.got)
	}
}

func TestTCPIdleConnectionsAreForgotten(t *testing.T) {
	f := newFeed(t)
	f.segments(true, [][]byte{framed(query(t, "a.example.", 1))}, nil)
	if len(f.table.conns) == 0 {
		t.Fatal("no connection")
	}
	f.after(time.Hour)
	f.after(time.Hour)
	if len(f.table.conns) != 0 {
		t.Errorf("%d connections left", len(f.table.conns))
	}
}
