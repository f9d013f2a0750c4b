package dnstrace

import (
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/forward"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// Every policy names the upstream that it chose.
func TestForwardPolicies(t *testing.T) {
	first, second, down := upstream(t, answerA), upstream(t, answerA), refusing(t)
	for _, tc := range []struct{ policy, third string }{
		{"random", first}, {"round_robin", second}, {"sequential", down},
	} {
		s := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
			}
			forward . `+tc.third+` `+second+` `+first+` {
				policy `+tc.policy+`
			}
		}`)
		var asked []string
		for n := range 8 {
			s.ask("example.org.", dns.TypeA)
			q := s.query(n + 1)
			last := q.Upstreams[len(q.Upstreams)-1]
			if last.Outcome != trace.OutcomeOK || last.Attempt != len(q.Upstreams) || last.Plugin != "forward" || last.Address == down {
				t.Errorf("%s: attempts %s", tc.policy, attempts(q.Upstreams))
			}
			for _, a := range q.Upstreams[:len(q.Upstreams)-1] {
				if a.Outcome != trace.OutcomeError || a.Address != down {
					t.Errorf("%s: attempts %s", tc.policy, attempts(q.Upstreams))
				}
			}
			asked = append(asked, last.Address)
			checkTimes(t, q)
		}
		if tc.policy == "sequential" && slices.Contains(asked, first) || tc.policy == "round_robin" && asked[0] == asked[1] && asked[1] == asked[2] {
			t.Errorf("%s asked %v", tc.policy, asked)
		}
	}
}

// An answer that does not fit is asked for again over TCP: one attempt of
// forward, and two exchanges on the wire.
func TestForwardOverTCP(t *testing.T) {
	var mu sync.Mutex
	var networks []string
	up := upstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		network := w.RemoteAddr().Network()
		mu.Lock()
		networks = append(networks, network)
		mu.Unlock()
		if network == "tcp" {
			answerA(w, r)
			return
		}
		m := new(dns.Msg).SetReply(r)
		m.Truncated = true
		reply(w, m)
	})
	for _, tc := range []struct{ option, want string }{
		{"", "udp"}, {"prefer_udp", "udp tcp"}, {"force_tcp", "tcp"},
	} {
		mu.Lock()
		networks = nil
		mu.Unlock()
		s := start(t, `.:0 {
			bind 127.0.0.1
			dnstrace {
				output file $RECORDS
			}
			forward . `+up+` {
				`+tc.option+`
				health_check 1h
			}
		}`)
		answer := s.ask("example.org.", dns.TypeA)
		q := s.query(1)
		mu.Lock()
		if got := strings.Join(networks, " "); got != tc.want {
			t.Errorf("%s: upstream was asked over %s, want %s", tc.option, got, tc.want)
		}
		mu.Unlock()
		if got := attempts(q.Upstreams); got != "1 ok "+up || q.Outcome != trace.OutcomeAnswered || q.Protocol != "udp" {
			t.Errorf("%s: attempts %s, %s over %s", tc.option, got, q.Outcome, q.Protocol)
		}
		if *q.ResponseSize != answer.Len() {
			t.Errorf("%s: response size %d, the answer has %d", tc.option, *q.ResponseSize, answer.Len())
		}
	}
}

// A query over the limit is refused by forward; nobody wrote that answer.
func TestMaxConcurrent(t *testing.T) {
	busy, release := make(chan bool), make(chan bool)
	up := upstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Name == "slow.org." {
			busy <- true
			<-release
		}
		answerA(w, r)
	})
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+up+` {
			max_concurrent 1
		}
	}`)
	done := make(chan error)
	go func() {
		_, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion("slow.org.", dns.TypeA), s.addr)
		done <- err
	}()
	<-busy
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	if q.RCode != "REFUSED" || q.Outcome != trace.OutcomeRefused || !strings.Contains(q.Error, "concurrent") || q.AnsweredBy != "" || len(q.Upstreams) != 0 {
		t.Errorf("%s %s by %q: %s, attempts %s", q.RCode, q.Outcome, q.AnsweredBy, q.Error, attempts(q.Upstreams))
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if q := s.query(2); q.QName != "slow.org." || q.Outcome != trace.OutcomeAnswered {
		t.Errorf("%s %s", q.QName, q.Outcome)
	}
}

// upstreamsDown starts a server whose only upstream forward has marked down.
func upstreamsDown(t *testing.T, options, plugins string) (s *server, down string) {
	t.Helper()
	down = refusing(t)
	s = start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		`+plugins+`
		forward . `+down+` {
			health_check 10ms
			max_fails 1
			`+options+`
		}
	}`)
	// forward marks it after two checks, which an attempt sets off.
	s.ask("first.org.", dns.TypeA)
	var f *forward.Forward
	for h := s.plugin().Next; f == nil; {
		h = h.(*hop).next
		if f, _ = h.(*forward.Forward); f == nil {
			h = fieldsOf(reflect.ValueOf(h)).FieldByName("Next").Interface().(plugin.Handler)
		}
	}
	for range 500 {
		if f.List()[0].Down(1) {
			return s, down
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the upstream is not marked down")
	return nil, ""
}

func TestAllMarkedDown(t *testing.T) {
	for _, tc := range []struct{ options, plugins, want string }{
		// Where all are down, forward asks one of them once.
		{"", "", "error error"},
		// The client gets the answer of rewrite, which came after the failure.
		{"", "rewrite name old.org new.org", "rewrite error error"},
		{"failfast_all_unhealthy_upstreams", "", "error "},
	} {
		s, down := upstreamsDown(t, tc.options, tc.plugins)
		before := len(s.wait(1))
		s.ask("old.org.", dns.TypeA)
		q := s.query(before + 1)
		var outcomes []string
		for _, a := range q.Upstreams {
			outcomes = append(outcomes, a.Outcome)
			if a.Address != down {
				t.Errorf("%s: attempts %s", tc.options, attempts(q.Upstreams))
			}
		}
		got := strings.TrimPrefix(q.AnsweredBy+" "+q.Outcome+" "+strings.Join(outcomes, " "), " ")
		if got != tc.want || q.RCode != "SERVFAIL" || q.Error == "" {
			t.Errorf("%s %s: got %q, want %q; %s %q", tc.options, tc.plugins, got, tc.want, q.RCode, q.Error)
		}
	}
}

// An upstream that answers with another question is heard, and not believed.
func TestWrongAnswer(t *testing.T) {
	up := upstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Question[0].Name = "other.org."
		reply(w, m)
	})
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+up+`
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	if q.RCode != "FORMERR" || q.Outcome != trace.OutcomeAnswered || attempts(q.Upstreams) != "1 ok "+up {
		t.Errorf("%s %s, attempts %s", q.RCode, q.Outcome, attempts(q.Upstreams))
	}
}

// A client over HTTP that goes away takes the refresh it set off with it. That
// is no answer of the upstream.
func TestRefreshOfClientThatLeft(t *testing.T) {
	cert, key, client := certificate(t)
	a := &aging{delay: 100 * time.Millisecond} // the client has its answer long before
	up := upstream(t, a.serve)
	s := start(t, `https://.:0 {
		tls `+cert+` `+key+`
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache {
			success 100 3600 1
			serve_stale 1h immediate
		}
		forward . `+up+`
	}`)
	m := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	askDoH(t, s.addr, client, m)
	time.Sleep(expired)
	askDoH(t, s.addr, client, m)
	_, refreshes := split(s.wait(3))
	if len(refreshes) != 1 || refreshes[0].Cause != "stale" {
		t.Fatalf("refreshes: %+v", refreshes)
	}
	// Whether the query still went out, and got its answer, is a race.
	if got := attempts(refreshes[0].Upstreams); got != "" && got != "1  "+up && got != "1 ok "+up {
		t.Errorf("attempts: %s", got)
	}
}

// An address of the wrong kind is no address.
func TestAddress(t *testing.T) {
	for _, tc := range []struct {
		addr        net.Addr
		want, proto string
	}{
		{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}, "127.0.0.1:5", "udp"},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 5}, "[::1]:5", "tcp"},
		{&net.UnixAddr{Name: "/run/x", Net: "unix"}, "invalid AddrPort", "udp"},
		{nil, "invalid AddrPort", "udp"},
	} {
		if addr, proto := address(tc.addr); addr.String() != tc.want || proto != tc.proto {
			t.Errorf("%v: %s %s", tc.addr, addr, proto)
		}
	}
}

// Without a limit, forward asks an upstream that refuses for seconds. Not all of
// that is recorded, and of the last that is nothing shows how it ended.
func TestManyAttempts(t *testing.T) {
	down := refusing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		forward . `+down+` {
			max_connect_attempts 1000
			max_fails 0
		}
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	n := len(q.Upstreams)
	if n != maxParts-1 || q.Upstreams[n-1].Outcome != reported(trace.OutcomeError, "") || q.Upstreams[n-2].Outcome != trace.OutcomeError || q.Outcome != trace.OutcomeError {
		t.Errorf("%s after %d attempts, the last ones are %+v", q.Outcome, n, q.Upstreams[n-2:])
	}
}
