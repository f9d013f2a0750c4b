package exchange

import (
	"encoding/binary"
	"net/netip"
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
				if ex.NAT == nil || ex.NAT.ServerIP != server.Addr() || ex.Path.Len() != 5 || ex.Transmissions != 1 {
					t.Errorf("%s: translated %+v, %d sightings, %d transmissions", ex.QName, ex.NAT, ex.Path.Len(), ex.Transmissions)
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
	truncate := func(p *capture.Packet) { p.Payload = p.Payload[:min(len(p.Payload), 2048)] }
	f.packet(capture.RX, podNS, 2, service, pod, long, tcp(78, 0), truncate)
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
	f.after(9 * time.Second)
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

// Fast Open: the first query is in the packet that opens the connection (RFC 7413).
func TestTCPFastOpen(t *testing.T) {
	f := newFeed(t)
	q, next := framed(query(t, "one.example.", 1)), framed(query(t, "two.example.", 2))
	r := framed(response(t, "one.example.", 1, 0))
	f.packet(capture.TX, podNS, 2, pod, service, q, tcp(100, capture.FlagSYN))
	f.packet(capture.RX, podNS, 2, service, pod, r, tcp(500, capture.FlagSYN|capture.FlagACK))
	f.packet(capture.TX, podNS, 2, pod, service, next, tcp(101+uint32(len(q)), capture.FlagACK))
	f.after(9 * time.Second)
	if len(f.got) != 2 || f.got[0].QName != "one.example." || f.got[0].Outcome != trace.OutcomeAnswered || f.got[1].QName != "two.example." {
		t.Fatalf("%+v; stats %+v", f.got, f.table.Stats())
	}
}

// A segment that is sent again is a transmission of the same query, not another
// query.
func TestTCPRetransmission(t *testing.T) {
	f := newFeed(t)
	q, r := framed(query(t, "one.example.", 1)), framed(response(t, "one.example.", 1, 0))
	f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(100, capture.FlagSYN))
	for range 3 {
		f.packet(capture.TX, podNS, 2, pod, service, q, tcp(101, capture.FlagACK))
		f.now += int64(time.Second)
	}
	// The second try comes with the beginning of the next message.
	both := append(append([]byte{}, q...), framed(query(t, "two.example.", 2))...)
	f.packet(capture.TX, podNS, 2, pod, service, both, tcp(101, capture.FlagACK))
	f.packet(capture.RX, podNS, 2, service, pod, r, tcp(500, capture.FlagACK))
	f.packet(capture.RX, podNS, 2, service, pod, r, tcp(500, capture.FlagACK))
	f.after(9 * time.Second)
	if len(f.got) != 2 {
		t.Fatalf("%d exchanges, expected 2", len(f.got))
	}
	if ex := f.got[0]; ex.QName != "one.example." || ex.Transmissions != 4 || ex.Outcome != trace.OutcomeAnswered || ex.Duration.Duration() < 3*time.Second {
		t.Errorf("%s: %d transmissions, %s in %v", ex.QName, ex.Transmissions, ex.Outcome, ex.Duration)
	}
	if ex := f.got[1]; ex.QName != "two.example." || ex.Transmissions != 1 {
		t.Errorf("%s: %d transmissions", ex.QName, ex.Transmissions)
	}
}

// A connection that cannot be opened is an exchange without a question: dropped,
// or unanswered if it was asked for more than once.
func TestTCPConnect(t *testing.T) {
	const syn, accept = capture.FlagSYN, capture.FlagSYN | capture.FlagACK
	dropped := func(p *capture.Packet) { p.Reason = "NETFILTER_DROP" }
	ask := func(f *feed) {
		f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(100, syn))
		f.packet(capture.TX, nodeNS, 6, pod, server, nil, tcp(100, syn), withNAT(dnat))
	}
	for _, tc := range []struct {
		name      string
		see       func(*feed)
		outcome   string // empty: no exchange
		sent      int
		message   string // of the drop
		noConnect uint64
	}{
		{"SYN dropped", func(f *feed) {
			ask(f)
			f.packet(capture.Drop, nodeNS, 5, pod, server, nil, tcp(100, syn), withNAT(dnat), dropped)
		}, trace.OutcomeDropped, 1, trace.MessageQuery, 1},
		{"only its drop seen", func(f *feed) {
			f.packet(capture.Drop, podNS, 0, pod, service, nil, tcp(100, syn), dropped)
		}, trace.OutcomeDropped, 1, trace.MessageQuery, 1},
		{"answer dropped", func(f *feed) {
			ask(f)
			f.packet(capture.TX, serverNS, 2, server, pod, nil, tcp(7, accept))
			f.packet(capture.Drop, nodeNS, 5, server, pod, nil, tcp(7, accept), withNAT(dnat), dropped)
		}, trace.OutcomeDropped, 1, trace.MessageResponse, 0},
		{"accepted", func(f *feed) {
			ask(f)
			f.packet(capture.TX, serverNS, 2, server, pod, nil, tcp(7, accept))
			f.packet(capture.RX, podNS, 2, service, pod, nil, tcp(7, accept))
		}, "", 0, "", 0},
		{"dropped, then accepted", func(f *feed) {
			ask(f)
			f.packet(capture.Drop, nodeNS, 5, pod, server, nil, tcp(100, syn), withNAT(dnat), dropped)
			f.after(time.Second)
			ask(f)
			f.packet(capture.RX, podNS, 2, service, pod, nil, tcp(7, accept))
		}, "", 0, "", 1},
		{"accepted, which was not seen", func(f *feed) {
			ask(f)
			f.after(time.Second)
			ask(f)
			f.packet(capture.TX, podNS, 2, pod, service, []byte{0}, tcp(101, capture.FlagACK))
		}, "", 0, "", 0},
		{"asked for once, maybe refused", ask, "", 0, "", 0},
		{"asked for again", func(f *feed) {
			ask(f)
			f.after(time.Second)
			ask(f)
		}, trace.OutcomeUnanswered, 2, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			tc.see(f)
			f.after(20 * time.Second)
			f.after(2 * connIdle)
			if got := f.table.Stats(); got.NoConnect != tc.noConnect || got.Open != 0 || got.NotDNS != 0 {
				t.Errorf("stats %+v", got)
			}
			if tc.outcome == "" {
				if len(f.got) != 0 {
					t.Fatalf("%+v", f.got[0])
				}
				return
			}
			if len(f.got) != 1 {
				t.Fatalf("%d exchanges, expected one", len(f.got))
			}
			ex := f.got[0]
			if ex.QName != "" || ex.QType != "" || ex.Protocol != "tcp" || ex.Outcome != tc.outcome || ex.Transmissions != tc.sent ||
				ex.ClientPort != pod.Port() || ex.ServerIP != service.Addr() && tc.name != "only its drop seen" {
				t.Errorf("%+v", ex)
			}
			if tc.message != "" && (len(ex.Drops) == 0 || ex.LastDrop().Message != tc.message) {
				t.Errorf("drop %+v", ex.Drops)
			}
			if want := trace.NewFlow(trace.TransportTCP, pod, 0, 0, 0, nil); ex.Flow != want {
				t.Errorf("flow %s, expected %s", ex.Flow, want)
			}
		})
	}
}

// A connection with thousands of queries, and one that stays open when its
// lookups are over.
func TestTCPConnectionMemoryIsBounded(t *testing.T) {
	f := newFeed(t)
	seq := uint32(1)
	for id := range uint16(10 * recentMessages) {
		b := framed(query(t, "many.example.", id))
		f.packet(capture.TX, podNS, 2, pod, service, b, tcp(seq, capture.FlagACK))
		seq += uint32(len(b))
	}
	for _, c := range f.table.conns {
		if len(c.query.recent) > recentMessages || cap(c.query.cursors[0].buf) > 2*maxMessageBytes {
			t.Errorf("%d messages, %d bytes", len(c.query.recent), cap(c.query.cursors[0].buf))
		}
	}
	for range 3 { // the timeout, what may come late, the next look at the connections
		f.after(20 * time.Second)
	}
	if len(f.table.conns) == 0 {
		t.Fatal("the connection is forgotten")
	}
	for _, c := range f.table.conns {
		if n := len(c.query.recent); n != 0 {
			t.Errorf("%d exchanges that are over are held", n)
		}
	}
}

// Which end sends shows also behind a Service that listens on another port than
// its pods, on a connection that began before we looked.
func TestTCPTranslatedPort(t *testing.T) {
	behind := netip.AddrPortFrom(server.Addr(), 5300)
	n := &capture.NAT{Original: capture.Tuple{Src: pod, Dst: service}, Reply: capture.Tuple{Src: behind, Dst: pod}}
	table := newFeed(t).table
	for _, tc := range []struct {
		src, dst   netip.AddrPort
		nat        *capture.NAT
		client, ok bool
	}{
		{pod, behind, n, true, true},
		{behind, pod, n, false, true},
		{behind, pod, nil, false, false},
		{pod, service, nil, true, true},
	} {
		client, ok := table.fromClient(&capture.Packet{Src: tc.src, Dst: tc.dst, NAT: tc.nat})
		if client != tc.client || ok != tc.ok {
			t.Errorf("%s to %s: from the client %t, known %t", tc.src, tc.dst, client, ok)
		}
	}
}

// A transparent proxy takes a connection, and opens another with the same addresses and
// ports: two exchanges, each with its own segments, whatever the sequence numbers.
func TestTransparentProxyOverTCP(t *testing.T) {
	q, r := framed(query(t, "example.com.", 7)), framed(response(t, "example.com.", 7, 0))
	for name, isn := range map[string][4]uint32{
		"as Linux counts them": {2_418_582_602, 3_745_895_629, 2_418_599_922, 3_745_912_949}, "far apart": {1000, 5_000_000, 2_000_000_000, 3_000_000_000}, "it wraps": {0xffffffff, 0x80000000, 0x7fffff00, 10},
	} {
		f := newFeed(t)
		client, proxy := sentBy(42, "dig", 0), sentBy(99, "proxy", 0)
		down := func(fromClient bool, seq uint32, flags uint8, b []byte) {
			f.skb++
			if fromClient {
				f.packet(tx, podNS, 2, pod, service, b, tcp(seq, flags), client)
				f.packet(rx, nodeNS, 5, pod, service, b, tcp(seq, flags))
				return
			}
			f.packet(tx, nodeNS, 5, service, pod, b, tcp(seq, flags), proxy)
			f.packet(rx, podNS, 2, service, pod, b, tcp(seq, flags))
		}
		up := func(fromClient bool, seq uint32, flags uint8, b []byte) {
			f.skb++
			if fromClient {
				f.packet(tx, nodeNS, 6, pod, service, b, tcp(seq, flags), proxy)
				f.packet(rx, serverNS, 2, pod, service, b, tcp(seq, flags))
				return
			}
			f.packet(tx, serverNS, 2, service, pod, b, tcp(seq, flags), sentBy(7, "coredns", 0))
			f.packet(rx, nodeNS, 6, service, pod, b, tcp(seq, flags))
		}
		n := uint32(len(q))
		down(true, isn[0], syn, nil)
		down(false, isn[1], accept, nil)
		down(true, isn[0]+1, capture.FlagACK, nil)
		up(true, isn[2], syn, nil)
		down(true, isn[0]+1, capture.FlagACK, q)
		up(false, isn[3], accept, nil)
		up(true, isn[2]+1, capture.FlagACK, q)
		up(false, isn[3]+1, capture.FlagACK, r)
		down(false, isn[1]+1, capture.FlagACK, r)
		down(true, isn[0]+1+n, fin, nil)
		up(true, isn[2]+1+n, fin, nil)
		f.after(time.Second)
		if len(f.got) != 2 {
			t.Fatalf("%s: %d exchanges; stats %+v", name, len(f.got), f.table.Stats())
		}
		for _, ex := range f.got {
			from, _ := ex.ClientPlace()
			to, _ := ex.ServerPlace()
			if ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 4 || to.NetNS != from.NetNS+1 {
				t.Errorf("%s: from %d to %d: %s, %d sightings, %s", name, from.NetNS, to.NetNS, ex.Outcome, ex.Path.Len(), milestones(ex))
			}
		}
		f.after(3 * time.Minute)
		if s := f.table.Stats(); len(f.table.conns) != 0 || s.Bytes != 0 {
			t.Errorf("%s: %d connections are left, %d bytes", name, len(f.table.conns), s.Bytes)
		}
		// The client's port is reused, with another sequence.
		down(true, isn[0]+77_000_000, syn, nil)
		down(true, isn[0]+77_000_001, capture.FlagACK, q)
		if len(f.table.conns) != 1 {
			t.Errorf("%s: %d connections", name, len(f.table.conns))
		}
	}
}

// A server closes a connection on which its client's query is dropped; the client's kernel
// sends the query again for minutes, which changes nothing.
func TestRepeatedOnAClosedConnection(t *testing.T) {
	q := framed(query(t, "example.com.", 7))
	f := newFeed(t)
	f.here(true, 99, syn, nil)
	f.here(false, 77, accept, nil)
	dropped := func() {
		f.skb++
		f.packet(tx, podNS, 2, pod, server, q, tcp(100, capture.FlagACK))
		f.packet(capture.Drop, podNS, 2, pod, server, q, tcp(100, capture.FlagACK), func(p *capture.Packet) { p.Reason = "TC_INGRESS" })
	}
	dropped()
	f.after(time.Second)
	dropped()
	f.after(time.Second)
	f.here(false, 78, fin, nil)
	for range 5 {
		f.after(2 * time.Second)
		dropped()
	}
	f.after(time.Minute)
	if ex := f.one(); ex.Outcome != trace.OutcomeDropped || ex.Transmissions != 2 || len(ex.Drops) != 2 {
		t.Errorf("%s, sent %d times, %d drops", ex.Outcome, ex.Transmissions, len(ex.Drops))
	}
}

// A proxy may pass a response on without reading it, as by splice(2): when it has closed
// the connection, there is nothing to wait for.
func TestUnreadOnAConnectionThatItsClientLeft(t *testing.T) {
	for leaves, want := range map[bool]int{true: 1, false: 0} {
		f := newFeed(t)
		f.table.cfg.Observes = capture.Observes{DeliveredTCP: true, ReadTCP: true}
		q, r := framed(query(t, "example.com.", 7)), framed(response(t, "example.com.", 7, 0))
		f.here(true, 99, syn, nil)
		f.here(false, 77, accept, nil)
		f.here(true, 100, capture.FlagACK, q)
		f.here(false, 78, capture.FlagACK, r)
		f.packet(capture.Delivered, podNS, 0, server, pod, r, tcp(78, capture.FlagACK))
		f.after(150 * time.Millisecond)
		if leaves {
			f.here(true, 100+uint32(len(q)), fin, nil)
		}
		f.after(50 * time.Millisecond)
		if len(f.got) != want {
			t.Errorf("the client leaves %t: %d exchanges after 200 ms, want %d", leaves, len(f.got), want)
		}
	}
}

// Two queries in one segment of a transparent proxy are both its own.
func TestTransparentProxySendsTwoInASegment(t *testing.T) {
	both := append(framed(query(t, "a.example.", 1)), framed(query(t, "b.example.", 2))...)
	f := newFeed(t)
	f.packet(tx, podNS, 2, pod, service, nil, tcp(99, syn), sentBy(42, "dig", 0))
	f.packet(tx, podNS, 2, pod, service, both, tcp(100, capture.FlagACK), sentBy(42, "dig", 0))
	f.packet(rx, nodeNS, 5, pod, service, both, tcp(100, capture.FlagACK))
	f.skb++
	f.packet(tx, nodeNS, 6, pod, service, nil, tcp(5099, syn), sentBy(99, "proxy", 0))
	f.packet(tx, nodeNS, 6, pod, service, both, tcp(5100, capture.FlagACK), sentBy(99, "proxy", 0))
	f.packet(rx, serverNS, 2, pod, service, both, tcp(5100, capture.FlagACK))
	f.after(time.Minute)
	if len(f.got) != 4 {
		t.Errorf("%d exchanges, want 4", len(f.got))
	}
}
