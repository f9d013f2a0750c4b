package onkernel

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
	"github.com/dnstrace/dnstrace/trace"
)

// serve answers every query at an address, over a protocol, until the test ends.
func serve(t *testing.T, network, address string) {
	t.Helper()
	server := &dns.Server{Net: network, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasPrefix(q.Question[0].Name, "slow") {
			time.Sleep(slow)
		}
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: net.IPv4(192, 0, 2, 7)}}
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})}
	var err error
	if network == "udp" {
		server.PacketConn, err = net.ListenPacket(network, address)
	} else {
		server.Listener, err = net.Listen(network, address)
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// atDevices counts the sightings at devices: those at sockets are not on every kernel.
func atDevices(ex *trace.Exchange) (n int) {
	for _, s := range ex.Path.All() {
		if s.IfName != "" {
			n++
		}
	}
	return n
}

// A lookup that is answered, over UDP, by whom and for whom.
func TestLookup(t *testing.T) {
	proves(t, feature.Lookup)
	tr := startTracer(t)
	serve(t, "udp", "127.0.0.10:53")
	q := new(dns.Msg).SetQuestion("answered.test.", dns.TypeA)
	client := dns.Client{Timeout: patience}
	if _, _, err := client.Exchange(q, "127.0.0.10:53"); err != nil {
		t.Fatal(err)
	}
	ex := tr.exchange("answered.test.")
	if ex.Outcome != trace.OutcomeAnswered || atDevices(ex) != 4 || len(ex.Answers) != 1 || ex.Answers[0].Value != "192.0.2.7" {
		t.Errorf("outcome %s, path %+v, answers %+v", ex.Outcome, ex.Path, ex.Answers)
	}
	want := os.Getpid()
	if lacks(t, feature.Process) {
		want = 0
	}
	for _, e := range []*trace.Endpoint{ex.Client, ex.Server} {
		if e == nil || e.PID != want {
			t.Errorf("%+v, expected process %d", e, want)
		}
	}
}

// DNS over TCP, the payload of which is in pages.
func TestLookupOverTCP(t *testing.T) {
	proves(t, feature.TCP)
	tr := startTracer(t)
	const address = "127.0.0.11:53"
	serve(t, "tcp", address)
	client := dns.Client{Net: "tcp", Timeout: patience}
	if _, _, err := client.Exchange(new(dns.Msg).SetQuestion("tcp.test.", dns.TypeA), address); err != nil {
		t.Fatal(err)
	}
	ex := tr.exchange("tcp.test.")
	if ex.Outcome != trace.OutcomeAnswered || ex.Protocol != "tcp" || ex.ServerIP != netip.MustParseAddrPort(address).Addr() || ex.Duration.Duration() > time.Minute {
		t.Errorf("%+v", ex)
	}
	if atDevices(ex) != 4 || len(ex.Answers) != 1 || ex.Answers[0].Value != "192.0.2.7" {
		t.Errorf("path %+v, answers %+v", ex.Path, ex.Answers)
	}
}

// A server that never answers: it is named by its socket, where the kernel lets
// the tracer look.
func TestSilentServer(t *testing.T) {
	lack := lacks(t, feature.Silent)
	tr := startTracer(t)
	for _, tc := range []struct{ name, listens, asked string }{
		{"silent.test.", "127.0.0.12:53", "127.0.0.12:53"}, {"silent6.test.", "[::]:53", "[::1]:53"},
	} {
		conn, err := net.ListenPacket("udp", tc.listens)
		if err != nil {
			t.Fatal(err)
		}
		ask(t, tc.asked, tc.name)
		ex := tr.exchange(tc.name)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if ex.Outcome != trace.OutcomeUnanswered {
			t.Errorf("%s: %s", tc.name, ex.Outcome)
		}
		switch s := ex.Server; {
		case lack:
			if s != nil && (s.PID != 0 || s.Process != "") {
				t.Errorf("%s: %+v, of a kernel that does not tell its process", tc.name, s)
			}
		case s == nil || s.PID != os.Getpid() || s.Process == "":
			t.Errorf("%s: server %+v, expected process %d", tc.name, s, os.Getpid())
		}
	}
}
