package dnstrace

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// capture is an upstream over UDP that keeps the queries as they came.
type capture struct {
	addr string

	mu      sync.Mutex
	queries [][]byte
}

// captureOn starts a capture on an address; answer may return nil.
func captureOn(t *testing.T, addr string, answer func(q *dns.Msg) *dns.Msg) *capture {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	u := &capture{addr: conn.LocalAddr().String()}
	done := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		b := make([]byte, dns.MaxMsgSize)
		for {
			n, client, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(b[:n]) != nil || len(q.Question) > 0 && q.Question[0].Name == "." {
				continue // forward's health check
			}
			u.mu.Lock()
			u.queries = append(u.queries, bytes.Clone(b[:n]))
			u.mu.Unlock()
			if m := answer(q); m != nil {
				if wire, err := m.Pack(); err == nil {
					_, _ = conn.WriteTo(wire, client)
				}
			}
		}
	}()
	return u
}

func newCapture(t *testing.T, answer func(q *dns.Msg) *dns.Msg) *capture {
	return captureOn(t, "127.0.0.1:0", answer)
}

// seen returns the queries that came so far.
func (u *capture) seen() [][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.queries)
}

// last returns the last query, and the trace context in it.
func (u *capture) last(t *testing.T) (q *dns.Msg, context *trace.Traceparent) {
	t.Helper()
	seen := u.seen()
	if len(seen) == 0 {
		t.Fatal("the upstream was not asked")
	}
	q = unpack(t, seen[len(seen)-1])
	tp, found, err := trace.FindTraceparent(q, trace.DefaultOptionCode)
	if err != nil {
		t.Fatal(err)
	}
	if found {
		context = &tp
	}
	return q, context
}

// echoA answers as a server would that returns every option it was sent.
func echoA(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
	m.Answer = []dns.RR{rr}
	if opt := q.IsEdns0(); opt != nil {
		m.Extra = append(m.Extra, opt)
	}
	return m
}

// quiet is the answer of an upstream that gives none.
func quiet(*dns.Msg) *dns.Msg { return nil }
