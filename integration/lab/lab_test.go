package lab

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// newLab builds a lab with a DNS server of its own in the CoreDNS pod, so that
// what is tested is the lab alone. It is the one place where these tests meet a
// machine that cannot have a lab: they fail there, since a skipped test says
// nothing.
func newLab(t *testing.T, cfg Config) (*Lab, *Server) {
	t.Helper()
	if err := preflight(); err != nil {
		t.Fatalf("the tests of integration/lab cannot run here: %v", err)
	}
	l := New(t, cfg)
	pod := l.Host(CoreDNS)
	s, err := l.Serve(CoreDNS, netip.AddrPortFrom(pod.V4, 53), netip.AddrPortFrom(pod.V6, 53))
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

// ways are the four ways to the Service.
var ways = []struct {
	name, network string
	server        netip.AddrPort
}{
	{"udp4", "udp", ServiceV4}, {"tcp4", "tcp", ServiceV4},
	{"udp6", "udp", ServiceV6}, {"tcp6", "tcp", ServiceV6},
}

func TestResolveThroughService(t *testing.T) {
	l, s := newLab(t, Config{})
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			name := w.name + ".example.test."
			r, err := l.Client("client-a").Exchange(t.Context(), Query{
				Name: name, Network: w.network, Server: w.server, LocalPort: 40001, ID: 0xc1a1,
			})
			if err != nil {
				t.Fatal(err)
			}
			if a := r.Answer.Answer[0].(*dns.A); netip.AddrFrom4([4]byte(a.A.To4())) != AddrA(name) {
				t.Errorf("answer %v, want %v", a.A, AddrA(name))
			}
			client := l.Host("client-a").V4
			if w.server.Addr().Is6() {
				client = l.Host("client-a").V6
			}
			want := netip.AddrPortFrom(client, 40001)
			if r.Local != want || r.ID != 0xc1a1 || r.Latency <= 0 || r.Latency > 5*time.Second {
				t.Errorf("result %+v, want local %v and ID c1a1", r, want)
			}
			got := s.Received(name)
			if len(got) != 1 || got[0].Client != want || got[0].ID != 0xc1a1 || got[0].Network != w.network || got[0].Type != dns.TypeA {
				t.Errorf("server received %+v", got)
			}
			if pod := l.Host(CoreDNS); got[0].Server.Addr() != pod.V4 && got[0].Server.Addr() != pod.V6 {
				t.Errorf("the query was not translated to the pod: %v", got[0].Server)
			}
		})
	}
}

func TestResolveFromNodeAndDirectly(t *testing.T) {
	l, s := newLab(t, Config{})
	for i, q := range []Query{
		{Name: "service4.test", Server: ServiceV4},
		{Name: "service6.test", Server: ServiceV6},
		{Name: "pod4.test", Server: s.V4()},
		{Name: "pod6.test", Server: s.V6(), Network: "tcp"},
	} {
		for _, host := range []string{Node, "client-b"} {
			if _, err := l.Client(host).Exchange(t.Context(), q); err != nil {
				t.Errorf("query %d from %s: %v", i, host, err)
			}
		}
	}
}

func TestUpstreamsSeeThePod(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		l, _ := newLab(t, Config{MasqueradeEgress: masquerade, Upstreams: 3})
		want4, want6 := l.Host(CoreDNS).V4, l.Host(CoreDNS).V6
		if masquerade {
			want4, want6 = NodeUplinkV4, nodeUplinkV6
		}
		for i := range 3 {
			up := l.Upstream(i)
			for _, c := range []struct{ server, want netip.AddrPort }{
				{up.V4(), netip.AddrPortFrom(want4, 0)}, {up.V6(), netip.AddrPortFrom(want6, 0)},
			} {
				up.Forget()
				_, err := l.Client(CoreDNS).Exchange(t.Context(), Query{Name: "up.test", Server: c.server})
				if got := up.Received(); err != nil || len(got) != 1 || got[0].Client.Addr() != c.want.Addr() {
					t.Errorf("masquerade %v, upstream %v: error %v, received %+v, want client %v", masquerade, c.server, err, got, c.want.Addr())
				}
			}
		}
	}
}

func TestTwoInFlightFromOnePort(t *testing.T) {
	l, s := newLab(t, Config{})
	defer s.Set("slow.test", Behaviour{Delay: 100 * time.Millisecond})()
	for _, network := range []string{"udp", "tcp"} {
		results := l.Client("client-a").ExchangeTogether(t.Context(),
			Query{Name: network + ".slow.test", Network: network},
			Query{Name: network + ".fast.test", Type: dns.TypeAAAA})
		slow, fast := results[0], results[1]
		if slow.Err != nil || fast.Err != nil || slow.Local != fast.Local || slow.ID == fast.ID {
			t.Fatalf("results %+v", results)
		}
		// The second was there while the first still waited (over TCP, miekg/dns
		// answers one connection's queries in order).
		if network == "udp" && fast.Latency >= slow.Latency {
			t.Errorf("fast took %v, slow %v", fast.Latency, slow.Latency)
		}
		if len(fast.Answer.Answer) != 1 || fast.Answer.Question[0].Name != network+".fast.test." {
			t.Errorf("answers were mixed up: %v", fast.Answer)
		}
	}
}

func TestRetransmit(t *testing.T) {
	l, s := newLab(t, Config{})
	defer s.Set("late.test", Behaviour{Delay: 250 * time.Millisecond})()
	r, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "late.test", RetransmitAfter: 100 * time.Millisecond})
	if err != nil || r.Transmissions != 3 {
		t.Errorf("result %+v, want three transmissions", r)
	}
	got := s.Received("late.test")
	if len(got) != 3 || got[0].ID != got[2].ID || got[0].Client != got[2].Client {
		t.Errorf("server received %+v", got)
	}
}

func TestBulk(t *testing.T) {
	t.Run("sockets of their own", func(t *testing.T) { testBulk(t, false) })
	t.Run("sockets that stay open", func(t *testing.T) { testBulk(t, true) })
}

func testBulk(t *testing.T, keep bool) {
	l, s := newLab(t, Config{})
	const count, rate = 1000, 500
	start := time.Now()
	results := l.Client("client-a").Bulk(t.Context(), Bulk{Count: count, Rate: rate, KeepSockets: keep})
	if took := time.Since(start); took < 1900*time.Millisecond || took > 10*time.Second {
		t.Errorf("%d lookups at %d a second took %v", count, rate, took)
	}
	received, ports := make(map[string]Received), make(map[uint16]bool)
	for _, r := range s.Received() {
		received[r.Name] = r
	}
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("lookup %d: %v", i, r.Err)
		}
		ports[r.Local.Port()] = true
		if got := received[BulkName(i)]; got.ID != r.ID || got.Client != r.Local {
			t.Errorf("lookup %d: server received %+v, client sent %+v", i, got, r)
		}
		if a := r.Answer.Answer[0].(*dns.A); netip.AddrFrom4([4]byte(a.A.To4())) != AddrA(r.Name) {
			t.Errorf("lookup %d got the answer of another: %v", i, r.Answer)
		}
	}
	if few := len(ports) < count/2; few != keep {
		t.Errorf("%d lookups from %d ports", count, len(ports))
	}
}

func TestBulkEndsWithItsContext(t *testing.T) {
	l, _ := newLab(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	results := l.Client("client-a").Bulk(ctx, Bulk{Count: 100, Rate: 50})
	if results[0].Err != nil || results[99].Err == nil || !results[99].Sent.IsZero() {
		t.Errorf("first: %v; last: %v", results[0].Err, results[99].Err)
	}
}

func TestPodsComeAndGo(t *testing.T) {
	l, s := newLab(t, Config{Clients: []string{}})
	if _, err := l.AddPod("late"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client("late").Exchange(t.Context(), Query{Name: "late.test"}); err != nil {
		t.Error(err)
	}
	if err := l.RemovePod("late"); err != nil {
		t.Error(err)
	}
	// A Service whose endpoint moves to another pod.
	pod, err := l.AddPod("coredns-2")
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.Serve("coredns-2", netip.AddrPortFrom(pod.V4, 53))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetEndpoints(second.V4()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client(Node).Exchange(t.Context(), Query{Name: "moved.test"}); err != nil {
		t.Error(err)
	}
	if len(second.Received("moved.test")) != 1 || len(s.Received("moved.test")) != 0 {
		t.Error("the Service did not move")
	}
}

func TestChainsAreNamedAsByKubeProxy(t *testing.T) {
	// From a real cluster; every one has these two.
	if got := chainHash("kube-system/kube-dns:dns" + "udp"); got != "TCOU7JCQXEZGVUNU" {
		t.Errorf("KUBE-SVC-%s", got)
	}
	if got := chainHash("kube-system/kube-dns:dns-tcp" + "tcp"); got != "ERIFXISQEP7F7OF4" {
		t.Errorf("KUBE-SVC-%s", got)
	}
}

// machine is what a lab must leave as it was: names under /run/netns, links of
// the host's own namespace, and the lab's temporary folders.
func machine(t *testing.T) []string {
	t.Helper()
	var seen []string
	for _, dir := range []string{netnsDir, os.TempDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ownPrefix()) || dir == netnsDir && !leftoverName.MatchString(e.Name()) {
				seen = append(seen, dir+"/"+e.Name())
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, link.Name)
		for _, a := range addrs {
			seen = append(seen, link.Name+" "+a.String())
		}
	}
	slices.Sort(seen)
	return seen
}
