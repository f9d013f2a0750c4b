package dnstrace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/acl" // plugins of the tests' Corefiles
	_ "github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/erratic"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/trace"
	_ "github.com/coredns/coredns/plugin/whoami"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

func TestMain(m *testing.M) {
	i := slices.Index(dnsserver.Directives, "dnstap")
	directives := slices.Insert(slices.Clone(dnsserver.Directives), i+1, earlyName, pluginName)
	i = slices.Index(directives, cachePlugin)
	dnsserver.Directives = slices.Insert(directives, i+1, panicName, unstartableName, severalName, customName)
	caddy.Quiet = true
	dnsserver.Quiet = true
	code := m.Run()
	if code == 0 {
		if left := leftGoroutines(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// server is a CoreDNS in this process.
type server struct {
	t        *testing.T
	instance *caddy.Instance
	addr     string
	records  string // path of the file that $RECORDS stands for
	stopped  bool
}

// start runs a Corefile, in which $RECORDS is a file that records can read.
func start(t *testing.T, corefile string) *server {
	t.Helper()
	s := &server{t: t}
	// The port that the kernel chose for one protocol can be in use in the other.
	// Caddy's error is a text.
	inUse, err := syscall.EADDRINUSE.Error(), error(syscall.EADDRINUSE)
	for n := 0; n < 5 && err != nil && strings.Contains(err.Error(), inUse); n++ {
		s.records = filepath.Join(t.TempDir(), "records.jsonl")
		s.instance, err = caddy.Start(caddy.CaddyfileInput{
			Contents: []byte(s.expand(corefile)), Filepath: "Corefile", ServerTypeName: "dns",
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.addr = s.listener(0).String()
	if s.addr[0] == '[' {
		_, port, _ := net.SplitHostPort(s.addr)
		s.addr = "127.0.0.1:" + port
	}
	t.Cleanup(s.stop)
	return s
}

// listener returns where the nth server listens: for packets, if it does.
func (s *server) listener(n int) net.Addr {
	l := s.instance.Servers()[n]
	if addr := l.LocalAddr(); addr != nil {
		return addr
	}
	return l.Addr()
}

// plugin returns the plugin of the last server block.
func (s *server) plugin() *Dnstrace {
	blocks := s.instance.Storage[instanceKey{}].(*instance).blocks
	return blocks[len(blocks)-1]
}

func (s *server) expand(corefile string) string {
	return strings.ReplaceAll(corefile, "$RECORDS", s.records)
}

// stop ends CoreDNS the way SIGTERM does.
func (s *server) stop() {
	if s.stopped {
		return
	}
	s.stopped = true
	for _, err := range s.instance.ShutdownCallbacks() {
		s.t.Error(err)
	}
	if err := s.instance.Stop(); err != nil {
		s.t.Error(err)
	}
}

// ask sends a question and returns the answer.
func (s *server) ask(name string, qtype uint16) *dns.Msg {
	s.t.Helper()
	return s.exchange("udp", new(dns.Msg).SetQuestion(name, qtype))
}

func (s *server) exchange(network string, m *dns.Msg) *dns.Msg {
	s.t.Helper()
	c := &dns.Client{Net: network, Timeout: 15 * time.Second}
	answer, _, err := c.Exchange(m, s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// query waits until exactly n records are written and returns the last, which
// must be a query.
func (s *server) query(n int) *trace.Query {
	s.t.Helper()
	records := s.wait(n)
	q, ok := records[n-1].(*trace.Query)
	if !ok {
		s.t.Fatalf("record %d is a %s", n, records[n-1].Kind())
	}
	return q
}

// wait waits until exactly n records are written.
func (s *server) wait(n int) []trace.Record {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		records := readRecords(s.t, s.records)
		if len(records) == n {
			return records
		}
		if len(records) > n || time.Now().After(deadline) {
			content, _ := os.ReadFile(s.records)
			s.t.Fatalf("got %d records, want %d:\n%s", len(records), n, content)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// readRecords reads a file of records; every line must be whole and valid.
func readRecords(t *testing.T, path string) []trace.Record {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, content)
}

func decode(t *testing.T, content []byte) []trace.Record {
	t.Helper()
	// The writer may be at it: what is not ended by a newline does not count.
	content = content[:bytes.LastIndexByte(content, '\n')+1]
	r := trace.NewReader(bytes.NewReader(content))
	var records []trace.Record
	for {
		rec, line, err := r.Read()
		if errors.Is(err, io.EOF) {
			return records
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		checkSchema(t, line)
		records = append(records, rec)
	}
}

// upstream runs a DNS server for handler over UDP and TCP.
func upstream(t *testing.T, handler dns.HandlerFunc) string {
	t.Helper()
	packets, listener := listenBoth(t)
	for _, srv := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: listener, Handler: handler}} {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		go func() {
			if err := srv.ActivateAndServe(); err != nil {
				t.Error(err)
			}
		}()
		<-up
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Error(err)
			}
		})
	}
	return listener.Addr().String()
}

// listenBoth listens on a port that is free in both protocols: one that the
// kernel chose for UDP can be in use over TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 5 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, listener
		}
		if err := packets.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// silent is an upstream that never answers.
func silent(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// refusing is an address where nobody listens.
//
// Its port is not one that the kernel gives out: a socket that asks it must not
// get the same port and so hear itself.
func refusing(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.1.0.%d:1", 1+refused.Add(1)%250)
}

// refused makes the addresses of refusing differ, and so their metrics.
var refused atomic.Int32

// reply sends m. A server of the tests that cannot is a bug of the tests.
func reply(w dns.ResponseWriter, m *dns.Msg) {
	if err := w.WriteMsg(m); err != nil {
		panic(err)
	}
}

// answerA answers every question with one A record of TTL 60.
func answerA(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	rr, _ := dns.NewRR(r.Question[0].Name + " 60 IN A 192.0.2.1")
	m.Answer = []dns.RR{rr}
	reply(w, m)
}

// answerRcode answers every question with rcode, and a SOA for negative caching.
func answerRcode(rcode int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, rcode)
		soa, _ := dns.NewRR("example.org. 60 IN SOA ns.example.org. admin.example.org. 1 7200 3600 1209600 60")
		m.Ns = []dns.RR{soa}
		reply(w, m)
	}
}

// hops returns the hops as "plugin<parent", in order.
func hops(list []trace.Hop) string {
	var names []string
	for _, h := range list {
		name := h.Plugin
		if h.Parent != nil {
			name += "<" + list[*h.Parent].Plugin
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// attempts returns the attempts as "number outcome address".
func attempts(list []trace.Attempt) string {
	var all []string
	for _, a := range list {
		all = append(all, fmt.Sprintf("%d %s %s", a.Attempt, a.Outcome, a.Address))
	}
	return strings.Join(all, ", ")
}
