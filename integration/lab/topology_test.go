package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

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
				both := []lab.Query{{Name: "both.test.", Server: service}, {Name: "both.test.", Server: service, Type: dns.TypeAAAA}}
				for _, res := range l.Client(top.Client).ExchangeTogether(t.Context(), both...) {
					if res.Err != nil {
						t.Errorf("A and AAAA from one socket to %s: %v", service, res.Err)
					}
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
			carries(t, l)
			for _, name := range counters[top.Name] {
				if n, err := l.Count(name); err != nil || n == 0 {
					t.Errorf("%s: %d, %v", name, n, err)
				}
			}
		})
	}
}

// counters are those that show that a topology's own parts did the work, and not the
// kernel's stack.
var counters = map[string][]string{
	"socket-lb-bridge":        {"translated", "translated_back"},
	"socket-lb-target-port":   {"translated", "translated_back"},
	"packet-lb":               {"delivered", "sent_out", "dropped"},
	"transparent-proxy":       {"proxied"},
	"socket-lb-redirect-peer": {"translated", "translated_back", "delivered", "delivered_from_uplink", "sent_out", "dropped"},
}

// carriers are the devices on the way, where a topology is about these.
var carriers = map[string][]struct{ host, device, direction string }{
	"two-uplinks":     {{lab.Node, "eth0", "tx"}, {lab.Node, "eth1", "rx"}},
	"vpc-cni":         {{lab.Node, "eth1", "tx"}, {lab.Node, "eth1", "rx"}},
	"flooding-bridge": {{"client-b", "eth0", "rx"}},
}

// carries wants many lookups, of client-a and of CoreDNS, to go by these devices.
func carries(t *testing.T, l *lab.Lab) {
	t.Helper()
	const lookups = 100
	carriers := carriers[l.Topology().Name]
	before := make([]uint64, len(carriers))
	for i, c := range carriers {
		before[i] = packets(t, l.Host(c.host), c.device, c.direction)
	}
	if carriers == nil {
		return
	}
	for from, to := range map[string]netip.AddrPort{l.Topology().Client: l.Topology().Services[0], lab.CoreDNS: l.Upstream(0).V4()} {
		for _, res := range l.Client(from).Bulk(t.Context(), lab.Bulk{
			Count: lookups, Rate: 1e6, Query: func(i int) lab.Query { return lab.Query{Name: lab.BulkName(i), Server: to} },
		}) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
		}
	}
	for i, c := range carriers {
		if n := packets(t, l.Host(c.host), c.device, c.direction) - before[i]; n < lookups {
			t.Errorf("%s of %s: %s %d packets of %d lookups", c.device, c.host, c.direction, n, lookups)
		}
	}
}

// packets counts what a device has sent or received.
func packets(t *testing.T, host *lab.Host, device, direction string) (n uint64) {
	t.Helper()
	err := host.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			// device: bytes packets … (8 columns of what was received) bytes packets …
			name, counts, _ := strings.Cut(strings.TrimSpace(line), ":")
			if fields := strings.Fields(counts); name == device {
				n, err = strconv.ParseUint(fields[map[string]int{"rx": 1, "tx": 9}[direction]], 10, 64)
				return err
			}
		}
		return fmt.Errorf("no device %s", device)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
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
