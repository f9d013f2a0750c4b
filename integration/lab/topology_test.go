package lab_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// Every topology carries queries from the client to the first server, from each server
// to the next, and from the last to the upstreams; and drops what it is to drop.
func TestTopologies(t *testing.T) {
	for _, top := range lab.Topologies() {
		t.Run(top.Name, func(t *testing.T) {
			l := lab.New(t, lab.Config{Topology: top, Upstreams: 1})
			servers := serveAll(t, l)
			for i, service := range top.Services {
				for _, q := range []lab.Query{
					{Name: "udp.test.", Network: "udp", Server: service},
					{Name: "tcp.test.", Network: "tcp", Server: service},
					{Name: "unconnected.test.", Network: "udp", Server: service, Unconnected: true},
				} {
					answers(t, l, top.Client, q, servers[0])
				}
				for n, server := range top.Servers {
					next, to := l.Upstream(0), []netip.AddrPort{l.Upstream(0).V4(), l.Upstream(0).V6()}[i]
					if n+1 < len(servers) {
						next, to = servers[n+1], netip.AddrPortFrom(server.Forward[i], 53)
					}
					for _, network := range []string{"udp", "tcp"} {
						answers(t, l, server.Host, lab.Query{Name: "up.test.", Network: network, Server: to}, next)
					}
				}
			}
			drops(t, l, servers[0])
			for _, name := range counters[top.Name] {
				if n, err := l.BPFCount(name); err != nil || n == 0 {
					t.Errorf("%s: %d, %v", name, n, err)
				}
			}
		})
	}
}

// counters are those of eBPF programs that show that these did the work, and not the
// kernel's stack, by topology.
var counters = map[string][]string{
	"socket-lb-bridge":        {"translated", "translated_back"},
	"socket-lb-target-port":   {"translated", "translated_back"},
	"packet-lb":               {"delivered", "sent_out", "dropped"},
	"socket-lb-redirect-peer": {"translated", "translated_back", "delivered", "delivered_from_uplink", "sent_out", "dropped"},
}

// serveAll starts a server in the place of each CoreDNS.
func serveAll(t *testing.T, l *lab.Lab) []*lab.Server {
	t.Helper()
	var servers []*lab.Server
	for _, s := range l.Topology().Servers {
		addrs := s.Bind
		if addrs == nil {
			addrs = []netip.Addr{netip.IPv6Unspecified()}
		}
		var listen []netip.AddrPort
		for _, a := range addrs {
			listen = append(listen, netip.AddrPortFrom(a, s.Port))
		}
		server, err := l.Serve(s.Host, listen...)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, server)
	}
	return servers
}

// answers makes a lookup, which the server is to get once and to answer.
func answers(t *testing.T, l *lab.Lab, from string, q lab.Query, by *lab.Server) {
	t.Helper()
	by.Forget()
	res, err := l.Client(from).Exchange(t.Context(), q)
	what := fmt.Sprintf("%s %s from %s to %s", q.Name, q.Network, from, q.Server)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if got := by.Received(q.Name); len(got) != 1 || got[0].ID != res.ID || got[0].Network != q.Network {
		t.Errorf("%s: the server got %+v", what, got)
	}
}

// drops wants queries of DroppedLabel to get lost, of others not.
func drops(t *testing.T, l *lab.Lab, first *lab.Server) {
	t.Helper()
	top := l.Topology()
	undo, err := l.DropQueries()
	if err != nil {
		t.Fatal(err)
	}
	first.Forget()
	var wait sync.WaitGroup
	for _, service := range top.Services {
		for _, network := range []string{"udp", "tcp"} {
			wait.Go(func() {
				q := lab.Query{Name: lab.DroppedLabel + ".test.", Network: network, Server: service, Timeout: time.Second}
				if _, err := l.Client(top.Client).Exchange(t.Context(), q); err == nil {
					t.Errorf("%s over %s to %s: answered", q.Name, network, service)
				}
			})
		}
	}
	wait.Wait()
	if got := first.Received(lab.DroppedLabel + ".test."); len(got) > 0 {
		t.Errorf("the server got %+v", got)
	}
	for _, service := range top.Services {
		answers(t, l, top.Client, lab.Query{Name: "other.test.", Network: "udp", Server: service}, first)
	}
	undo()
}
