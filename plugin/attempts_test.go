package dnstrace

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
)

// attempting starts the span of an attempt, as forward, fanout and others do.
func attempting(ctx context.Context, address string) ot.Span {
	above := ot.SpanFromContext(ctx)
	child := above.Tracer().StartSpan("connect", ot.ChildOf(above.Context()))
	otext.PeerAddress.Set(child, address)
	return child
}

func replyTo(w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetReply(r))
}

func init() {
	behaviours["one"] = func(_ plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		attempting(ctx, "192.0.2.1:53").Finish()
		return replyTo(w, r)
	}
	behaviours["next"] = func(_ plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		attempting(ctx, "192.0.2.1:53").Finish()
		attempting(ctx, "192.0.2.2:53").Finish()
		return replyTo(w, r)
	}
	behaviours["fails"] = func(_ plugin.Handler, ctx context.Context, _ dns.ResponseWriter, _ *dns.Msg) (int, error) {
		attempting(ctx, "192.0.2.1:53").Finish()
		return dns.RcodeServerFailure, errors.New("it failed")
	}
	behaviours["tags"] = func(_ plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		first := attempting(ctx, "192.0.2.1:53")
		otext.LogError(first, &net.OpError{Op: "read", Err: context.DeadlineExceeded})
		first.Finish()
		second := attempting(ctx, "192.0.2.2:53")
		otext.LogError(second, errors.New("no route"))
		second.Finish()
		third := attempting(ctx, "192.0.2.3:53")
		otext.Error.Set(third, true)
		third.Finish()
		attempting(ctx, "192.0.2.4:53").Finish()
		return replyTo(w, r)
	}
	// All at once, as fanout does: the first answer counts.
	behaviours["parallel"] = func(_ plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		first, second := attempting(ctx, "192.0.2.1:53"), attempting(ctx, "192.0.2.2:53")
		var both sync.WaitGroup
		both.Go(first.Finish)
		both.Go(second.Finish)
		both.Wait()
		return replyTo(w, r)
	}
	behaviours["inner"] = func(_ plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		outer, ctx := ot.StartSpanFromContextWithTracer(ctx, ot.SpanFromContext(ctx).Tracer(), "connect")
		defer outer.Finish()
		attempting(ctx, "192.0.2.1:53").Finish()
		return replyTo(w, r)
	}
}

// The attempts of any plugin that opens spans with a peer's address, as far as their
// outcome shows; only handlers are hops.
func TestAttemptsOfOtherPlugins(t *testing.T) {
	for behaviour, want := range map[string]string{
		"one":      "1 ok 192.0.2.1:53",
		"next":     "1 failed 192.0.2.1:53, 2 ok 192.0.2.2:53",
		"fails":    "1 error 192.0.2.1:53",
		"tags":     "1 timeout 192.0.2.1:53, 2 error 192.0.2.2:53, 3 failed 192.0.2.3:53, 4 ok 192.0.2.4:53",
		"parallel": "1  192.0.2.1:53, 2  192.0.2.2:53",
		"inner":    "1 ok 192.0.2.1:53",
	} {
		t.Run(behaviour, func(t *testing.T) {
			s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n "+customName+" "+behaviour+"\n}")
			s.ask("example.org.", dns.TypeA)
			q := s.query(1)
			if got := attempts(q.Upstreams); got != want || q.Upstreams[0].Plugin != customName {
				t.Errorf("got  %s\nwant %s, of %s", got, want, q.Upstreams[0].Plugin)
			}
			if got := hops(q.Hops); got != customName {
				t.Errorf("hops: %s", got)
			}
			if behaviour == "tags" && (q.Upstreams[1].Error != "no route" || q.Upstreams[2].Error != "") {
				t.Errorf("errors: %+v", q.Upstreams)
			}
		})
	}
}

// hanging accepts connections and closes each after a time, without an answer.
func hanging(t *testing.T, after time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			time.AfterFunc(after, func() { c.Close() })
		}
	}()
	return l.Addr().String()
}

// Each forward has its own read timeout: a duration that is a timeout of one is none of another.
func TestForwardsWithDifferentTimeouts(t *testing.T) {
	if forwardOption(t, "read_timeout 200ms") == "" {
		return // before CoreDNS 1.14 all wait for two seconds
	}
	up, quiet := upstream(t, answerA), silent(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward quick.org `+quiet+` `+up+` {
			policy sequential
			read_timeout 200ms
		}
		forward patient.org `+hanging(t, 300*time.Millisecond)+` `+up+` {
			policy sequential
			force_tcp
			read_timeout 1h
		}
		forward . `+quiet+` `+up+` {
			policy sequential
			read_timeout 1500ms
		}
	}`)
	for n, tc := range []struct{ name, want string }{
		{"quick.org.", trace.OutcomeTimeout}, {"patient.org.", trace.OutcomeError}, {"other.org.", trace.OutcomeTimeout},
	} {
		s.ask(tc.name, dns.TypeA)
		if q := s.query(n + 1); q.Upstreams[0].Outcome != tc.want {
			t.Errorf("%s: attempts %s, the first is %s", tc.name, attempts(q.Upstreams), tc.want)
		}
	}
}

// deaf answers queries over TCP, each on a connection of its own, until it is stopped:
// then its queue of connections fills up, and it drops every SYN, as a firewall does.
type deaf struct {
	addr  string
	ready chan bool
}

func newDeaf(t *testing.T) *deaf {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	d := &deaf{l.Addr().String(), make(chan bool)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for range d.ready {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := &dns.Conn{Conn: c}
			if r, err := conn.ReadMsg(); err == nil {
				_ = conn.WriteMsg(new(dns.Msg).SetReply(r))
			}
			conn.Close()
		}
	}()
	return d
}

// stop makes it drop what comes.
func (d *deaf) stop(t *testing.T) {
	t.Helper()
	close(d.ready)
	for range 8 {
		c, err := net.DialTimeout("tcp", d.addr, 200*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of connections does not fill")
}

// An upstream that does not even connect is no error that it reported, whether forward's
// limit for connecting ends the attempt or the one for reading would.
func TestSilentOverTCP(t *testing.T) {
	for _, option := range []string{"read_timeout 100ms", "read_timeout 2s", "read_timeout 5s"} {
		if option = forwardOption(t, option); option == "" {
			continue
		}
		d := newDeaf(t)
		s := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
			}
			forward . `+d.addr+` `+upstream(t, answerA)+` {
				policy sequential
				force_tcp
				max_fails 0
				`+option+`
			}
		}`)
		// forward waits twice as long for a connection as it is used to, and at least a second.
		const lessons = 14
		for range lessons {
			d.ready <- true
			s.ask("example.org.", dns.TypeA)
		}
		d.stop(t)
		s.ask("example.org.", dns.TypeA)
		q := s.query(lessons + 1)
		if o := q.Upstreams[0].Outcome; len(q.Upstreams) != 2 || o != trace.OutcomeTimeout && o != reported(trace.OutcomeTimeout, trace.OutcomeFailed) {
			t.Errorf("%s: attempts %s", option, attempts(q.Upstreams))
		}
	}
}
