package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

const (
	syn    = capture.FlagSYN
	accept = capture.FlagSYN | capture.FlagACK
	rst    = capture.FlagRST
	fin    = capture.FlagFIN | capture.FlagACK
)

// here feeds a segment from the pod's namespace into the server's, or back.
func (f *feed) here(fromClient bool, seq uint32, flags uint8, b []byte) {
	f.skb++
	src, dst, out, in := pod, server, uint32(podNS), uint32(serverNS)
	if !fromClient {
		src, dst, out, in = server, pod, serverNS, podNS
	}
	f.packet(tx, out, 2, src, dst, b, tcp(seq, flags))
	f.packet(rx, in, 2, src, dst, b, tcp(seq, flags))
}

// A connection that is refused is an exchange that is over at once.
func TestConnectionRefused(t *testing.T) {
	f := newFeed(t)
	f.here(true, 99, syn, nil)
	f.here(false, 0, rst|capture.FlagACK, nil)
	f.after(time.Second)
	ex := f.one()
	if ex.Outcome != trace.OutcomeUnanswered || !ex.Connects() || ex.Reset == nil || ex.Reset.Src != server || ex.Reset.Offset.Duration() != 2*time.Microsecond || milestones(ex) != "01? --?" {
		t.Errorf("%s, reset %+v, %s", ex.Outcome, ex.Reset, milestones(ex))
	}
	f.after(time.Hour)
	f.one()
}

// A SYN is sent again for minutes: one attempt, which replaces what was reported of it.
func TestAttemptIsReportedOnce(t *testing.T) {
	f := newFeed(t)
	waits := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}
	for _, wait := range waits {
		for range int(wait / time.Second) {
			f.after(time.Second)
		}
		f.here(true, 99, syn, nil)
	}
	f.after(2 * time.Minute)
	f.after(3 * time.Minute)
	if len(f.got) < 2 {
		t.Fatalf("%d records", len(f.got))
	}
	for i, ex := range f.got {
		if !ex.Time.Equal(f.got[0].Time) || ex.TraceID != f.got[0].TraceID || ex.Replaces != (i > 0) {
			t.Errorf("record %d: %s %s, replaces %t", i, ex.Time, ex.TraceID, ex.Replaces)
		}
	}
	if last := f.got[len(f.got)-1]; last.Transmissions != len(waits) {
		t.Errorf("%d transmissions", last.Transmissions)
	}
	if s := f.table.Stats(); s.Open != 0 || s.Bytes != 0 || len(f.table.conns) != 0 || len(f.table.clients) != 0 {
		t.Errorf("%+v, %d connections", s, len(f.table.conns))
	}
}

// An attempt that succeeds after it was reported says so.
func TestAttemptSucceedsLate(t *testing.T) {
	f := newFeed(t)
	f.here(true, 99, syn, nil)
	f.after(5 * time.Second)
	f.here(true, 99, syn, nil)
	f.after(20 * time.Second)
	f.here(true, 99, syn, nil)
	f.here(false, 499, accept, nil)
	f.here(true, 100, capture.FlagACK, framed(query(t, "a.example.", 7)))
	f.here(false, 500, capture.FlagACK, framed(response(t, "a.example.", 7, 0)))
	f.after(time.Minute)
	if len(f.got) != 3 {
		t.Fatalf("%d records", len(f.got))
	}
	var outcomes []string
	for _, ex := range f.got {
		outcomes = append(outcomes, ex.Outcome)
	}
	if f.got[0].Outcome != trace.OutcomeUnanswered || f.got[0].Replaces {
		t.Errorf("%v", outcomes)
	}
	answered := 0
	for _, ex := range f.got[1:] {
		if ex.Outcome == trace.OutcomeAnswered && (ex.Connects() == ex.Replaces) {
			answered++
		}
	}
	if answered != 2 {
		t.Errorf("%v", outcomes)
	}
}

// The listen queue of the server is full: its namespace got the SYN, and dropped it.
func TestListenQueueFull(t *testing.T) {
	for reason, want := range map[string]string{"TCP_LISTEN_OVERFLOW": trace.OutcomeDropped, "": trace.OutcomeUnanswered} {
		f := newFeed(t)
		f.table.cfg.Observes = everything
		for range 2 {
			f.here(true, 99, syn, nil)
			if reason != "" {
				f.packet(drop, serverNS, 2, pod, server, nil, tcp(99, syn), because(reason))
			}
			f.after(time.Second)
		}
		f.after(time.Minute)
		ex := f.one()
		place, ok := ex.ServerPlace()
		if ex.Outcome != want || !ok || place.NetNS != serverNS || ex.Transmissions != 2 || len(ex.Drops) != 2 && reason != "" {
			t.Errorf("%q: %s, at %v %t, %d drops, %s", reason, ex.Outcome, place, ok, len(ex.Drops), milestones(ex))
		}
	}
}

// The program at the listener says that its queue is full: of the last SYN that came there.
func TestListenerHasNoRoom(t *testing.T) {
	for _, full := range [][]bool{{true, true}, {false, true}, {true, false}, {false, false}} {
		f := newFeed(t)
		f.table.cfg.Observes = everything
		for _, noRoom := range full {
			f.here(true, 99, syn, nil)
			f.packet(capture.Delivered, serverNS, 0, pod, server, nil, tcp(99, syn), func(p *capture.Packet) { p.ListenFull = noRoom })
			f.after(time.Second)
		}
		f.after(time.Minute)
		if ex := f.one(); ex.ListenFull != full[len(full)-1] || ex.Outcome != trace.OutcomeUnanswered || !ex.Milestones.Query.Arrived.Seen() {
			t.Errorf("%v: listen_full %t, %s, %s", full, ex.ListenFull, ex.Outcome, milestones(ex))
		}
	}
}

// A connection that ends takes the queries with it that wait on it, and no others.
func TestConnectionEnds(t *testing.T) {
	q, r := framed(query(t, "a.example.", 7)), framed(response(t, "a.example.", 7, 0))
	next := framed(query(t, "b.example.", 8))
	for _, tc := range []struct {
		name     string
		feed     func(*feed)
		outcomes []string
		reset    bool
	}{
		{"reset while it waits", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.here(false, 500, rst, nil)
		}, []string{trace.OutcomeUnanswered}, true},
		{"reset by a socket that is closed, which drops the query", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.packet(drop, serverNS, 2, pod, server, q, tcp(100, capture.FlagACK), func(p *capture.Packet) { p.Where = "tcp_rcv_state_process" })
			f.here(false, 500, rst, nil)
		}, []string{trace.OutcomeUnanswered}, true},
		{"rejected by netfilter with a reset", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.packet(drop, serverNS, 2, pod, server, q, tcp(100, capture.FlagACK), because("NETFILTER_DROP"))
			f.here(false, 500, rst, nil)
		}, []string{trace.OutcomeDropped}, true},
		{"answered, then reset", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.here(false, 500, capture.FlagACK, r)
			f.here(true, 100+uint32(len(q)), rst, nil)
		}, []string{trace.OutcomeAnswered}, false},
		{"closed while it waits", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.here(false, 500, fin, nil)
		}, []string{trace.OutcomeUnanswered}, false},
		{"the answer is in the segment that closes", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.here(false, 500, fin, r)
		}, []string{trace.OutcomeAnswered}, false},
		{"closed before the answer that is sent again", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.here(false, 500+uint32(len(r)), fin, nil)
			f.after(time.Second)
			f.here(false, 500, capture.FlagACK, r)
		}, []string{trace.OutcomeAnswered}, false},
		{"asked on a connection that the server has closed", func(f *feed) {
			f.here(true, 100, capture.FlagACK, q)
			f.here(false, 500, capture.FlagACK, r)
			f.here(false, 500+uint32(len(r)), fin, nil)
			f.after(500 * time.Millisecond)
			f.here(true, 100+uint32(len(q)), capture.FlagACK, next)
			f.here(false, 501+uint32(len(r)), rst, nil)
		}, []string{trace.OutcomeAnswered, trace.OutcomeUnanswered}, true},
		{"the client has sent all that it will", func(f *feed) {
			f.here(true, 100, fin, q)
			f.after(time.Second)
			f.here(false, 500, capture.FlagACK, r)
		}, []string{trace.OutcomeAnswered}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			f.opened()
			tc.feed(f)
			f.after(500 * time.Millisecond)
			if len(f.got) != len(tc.outcomes) {
				t.Fatalf("%d exchanges, want %d", len(f.got), len(tc.outcomes))
			}
			for i, ex := range f.got {
				if ex.Outcome != tc.outcomes[i] || (ex.Reset != nil) != (tc.reset && i == len(f.got)-1) {
					t.Errorf("exchange %d: %s, reset %+v", i, ex.Outcome, ex.Reset)
				}
			}
			f.after(time.Hour)
			if len(f.got) != len(tc.outcomes) {
				t.Errorf("reported again: %d", len(f.got))
			}
		})
	}
}

// Resets and ends of connections that are not known make none.
func TestEndOfUnknownConnection(t *testing.T) {
	f := newFeed(t)
	f.here(true, 100, rst, nil)
	f.here(false, 500, fin, nil)
	if len(f.table.conns) != 0 {
		t.Errorf("%d connections", len(f.table.conns))
	}
}

// Which end is the client shows by the ports that are known to be servers', as those
// behind a Service.
func TestLearnedServerPort(t *testing.T) {
	behind := netip.AddrPortFrom(server.Addr(), 5353)
	f := newFeed(t)
	q, r := framed(query(t, "a.example.", 7)), framed(response(t, "a.example.", 7, 0))
	f.packet(tx, podNS, 2, pod, behind, q, tcp(100, capture.FlagACK), func(p *capture.Packet) { p.DstServer = true })
	f.skb++
	f.packet(rx, podNS, 2, behind, pod, r, tcp(500, capture.FlagACK), func(p *capture.Packet) { p.SrcServer = true })
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.ClientPort != pod.Port() || ex.ServerPort != 5353 {
		t.Errorf("%s, %d to %d; %+v", ex.Outcome, ex.ClientPort, ex.ServerPort, f.table.Stats())
	}
}
