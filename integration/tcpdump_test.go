package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// dnsPacket is one DNS message at one device, as tcpdump and the tracer both see
// it.
type dnsPacket struct {
	netns, device, direction, transport string
	src, dst                            netip.AddrPort
	id                                  uint16
	message                             string
}

func (p dnsPacket) String() string {
	return fmt.Sprintf("%s %s %s %s %s %s → %s, ID %d", p.netns, p.device, p.direction, p.transport, p.message, p.src, p.dst, p.id)
}

// Beside tcpdump in every namespace: each DNS packet that it saw is in a sighting,
// and there is no other, over both transports and both versions of IP; for
// lookups that are answered by the upstream and from the cache, do not exist, are
// dropped, fail over and come late.
func TestEveryPacketThatTcpdumpSaw(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer("--timeout", "1s")
	if err != nil {
		t.Fatal(err)
	}
	server, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab)))
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{lab.Node, "client-a", "client-b", lab.CoreDNS, lab.Upstream}
	dumps := startDumps(t, r, hosts)
	mixedRun(t, r)
	want := map[dnsPacket]int{}
	for _, host := range hosts {
		dumps[host].read(t, r, host, want)
	}
	for _, p := range []*lab.Process{server, tracer} {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	wantAll(t, tracer.Stderr(), " 0 lost;")
	got := sightings(t, r, hosts)
	comparePackets(t, got, want)
}

// mixedRun makes some hundreds of lookups of every kind.
func mixedRun(t *testing.T, r *rig) {
	t.Helper()
	r.Upstream(0).Set("missing.test.", lab.Behaviour{Rcode: dns.RcodeNameError})
	r.Upstream(0).Set("large.test.", lab.Behaviour{Size: 3000})
	for _, service := range []netip.AddrPort{lab.ServiceV4, lab.ServiceV6} {
		for _, network := range []string{"udp", "tcp"} {
			zone := fmt.Sprintf("%s-%t.test.", network, service.Addr().Is4())
			for _, name := range []string{"a." + zone, "a." + zone, zone + "missing.test.", zone + "large.test."} {
				extended := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
				extended.SetEdns0(4096, true)
				r.answered(lab.Query{Name: name, Network: network, Server: service, Message: extended})
			}
			together := r.Client("client-b").ExchangeTogether(context.Background(),
				lab.Query{Name: "b." + zone, Network: network, Server: service}, lab.Query{Name: "c." + zone})
			for _, res := range together {
				if res.Err != nil {
					t.Fatal(res.Err)
				}
			}
		}
	}
	for _, client := range []string{"client-a", "client-b"} {
		r.Client(client).Bulk(t.Context(), lab.Bulk{Count: 200, Rate: 500, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("n%d.test.", i/2)}
		}})
	}
	for _, local := range []string{"127.0.0.1:53", "[::1]:53"} {
		q := lab.Query{Name: "local.test.", Server: netip.MustParseAddrPort(local)}
		if _, err := r.Client(lab.CoreDNS).Exchange(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	faultyRun(t, r)
}

// faultyRun makes lookups that are dropped at several places, fail over and are
// answered when the client has gone.
func faultyRun(t *testing.T, r *rig) {
	t.Helper()
	for i, drop := range []struct {
		place    lab.Place
		messages lab.Match
	}{
		{lab.ClientOutput("client-a"), lab.Match{Messages: lab.Queries}},
		{lab.NodeForward, lab.Match{Messages: lab.Queries}},
		{lab.ServerInput, lab.Match{Messages: lab.Queries}},
		{lab.ServerOutput, lab.Match{Messages: lab.Responses}},
		{lab.NodeForward, lab.Match{Messages: lab.Responses}},
		{lab.ClientInput("client-a"), lab.Match{Messages: lab.Responses}},
	} {
		drop.messages.Leg = lab.ClientLeg
		undo, err := r.DropAt(drop.place, drop.messages)
		if err != nil {
			t.Fatal(err)
		}
		res := r.ask(lab.Query{Name: fmt.Sprintf("drop%d.test.", i), Timeout: 700 * time.Millisecond, RetransmitAfter: 300 * time.Millisecond})
		if res.Err == nil {
			t.Errorf("the firewall let drop%d.test. pass", i)
		}
		undo()
	}
	r.SilentUpstream(0, "silent.test.")
	r.answered(lab.Query{Name: "silent.test."})
	r.Upstream(0).Set("late.test.", lab.Behaviour{Delay: 1500 * time.Millisecond})
	r.ask(lab.Query{Name: "late.test.", GiveUpAfter: 100 * time.Millisecond})
	// The late answer is on its way.
	time.Sleep(2 * time.Second)
}

// dnsFilter is DNS in the language of pcap-filter(7), whose "port" does not look
// behind a fragment header of IPv6.
const dnsFilter = "port 53 or ip6 proto 44"

// dump is a running tcpdump.
type dump struct {
	*lab.Process
	file string
}

// startDumps starts tcpdump on every device of every host.
func startDumps(t *testing.T, r *rig, hosts []string) map[string]dump {
	t.Helper()
	dumps := map[string]dump{}
	for _, host := range hosts {
		file := filepath.Join(r.Dir(), host+".pcap")
		p, err := r.Start(lab.Spec{
			Name: "tcpdump-" + host, Host: host, Path: "tcpdump", Ready: lab.ReadyLine("listening on"),
			// As root, since another user could not write to the lab's folder.
			Args: []string{"-i", "any", "-y", "LINUX_SLL2", "--immediate-mode", "-U", "-B", "16384", "-Z", "root", "-w", file, dnsFilter},
		})
		if err != nil {
			t.Fatalf("%v (of the Debian package tcpdump)", err)
		}
		dumps[host] = dump{p, file}
	}
	return dumps
}

// read stops tcpdump and counts the DNS packets that it saw.
func (d dump) read(t *testing.T, r *rig, host string, count map[dnsPacket]int) {
	t.Helper()
	d.drain(t)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	wantAll(t, d.Stderr(), "\n0 packets dropped by kernel")
	fields := []string{"sll.ifindex", "sll.pkttype", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport",
		"tcp.srcport", "tcp.dstport", "dns.id", "dns.flags.response"}
	// Each packet for itself: one that is seen at the next device is no retransmission.
	args := []string{"-r", d.file, "-Y", "dns", "-T", "fields", "-o", "tcp.desegment_tcp_streams:FALSE",
		"-o", "tcp.analyze_sequence_numbers:FALSE", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := r.Run(context.Background(), lab.Spec{Name: "tshark", Path: "tshark", Args: args})
	if err != nil {
		t.Fatalf("%v (of the Debian package tshark)", err)
	}
	devices := deviceNames(t, r, host)
	for line := range strings.Lines(out) {
		values := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(values) != len(fields) {
			t.Fatalf("tshark: %q", line)
		}
		for _, p := range packetsOf(t, values) {
			p.netns, p.device = r.Host(host).Netns, devices[p.device]
			count[p]++
		}
	}
}

// drain waits until tcpdump has written what it captured: it loses the rest when
// it stops.
func (d dump) drain(t *testing.T) {
	t.Helper()
	size := int64(-1)
	for {
		info, err := os.Stat(d.file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == size {
			return
		}
		size = info.Size()
		time.Sleep(300 * time.Millisecond)
	}
}

// packetsOf reads the messages of one packet from tshark's fields; the device is
// its number.
func packetsOf(t *testing.T, v []string) []dnsPacket {
	t.Helper()
	const outgoing = "4" // PACKET_OUTGOING (packet(7))
	p := dnsPacket{device: v[0], direction: trace.DirectionRX, transport: "udp"}
	if v[1] == outgoing {
		p.direction = trace.DirectionTX
	}
	ports := v[6:8]
	if v[8] != "" {
		p.transport, ports = "tcp", v[8:10]
	}
	var err error
	if p.src, err = netip.ParseAddrPort(join(v[2]+v[4], ports[0])); err != nil {
		t.Fatalf("tshark: %v: %v", v, err)
	}
	if p.dst, err = netip.ParseAddrPort(join(v[3]+v[5], ports[1])); err != nil {
		t.Fatalf("tshark: %v: %v", v, err)
	}
	var all []dnsPacket
	responses := strings.Split(v[11], ",")
	for i, id := range strings.Split(v[10], ",") {
		n, err := strconv.ParseUint(id, 0, 16)
		if err != nil {
			t.Fatalf("tshark: %v: %v", v, err)
		}
		p.id, p.message = uint16(n), trace.MessageQuery
		if responses[i] == "1" || responses[i] == "True" {
			p.message = trace.MessageResponse
		}
		all = append(all, p)
	}
	return all
}

func join(addr, port string) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + port
}

// deviceNames returns the names of a host's devices by number.
func deviceNames(t *testing.T, r *rig, host string) map[string]string {
	t.Helper()
	names := map[string]string{}
	err := r.Host(host).Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			names[strconv.Itoa(d.Index)] = d.Name
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// sightings counts the sightings of all exchanges.
func sightings(t *testing.T, r *rig, hosts []string) map[dnsPacket]int {
	t.Helper()
	ours := map[string]bool{}
	for _, host := range hosts {
		ours[r.Host(host).Netns] = true
	}
	// A response that comes late makes another record of its exchange.
	last := map[string]*trace.Exchange{}
	for _, rec := range r.records() {
		if ex, ok := rec.(*trace.Exchange); ok {
			last[fmt.Sprint(ex.Flow, ex.Time)] = ex
		}
	}
	count := map[dnsPacket]int{}
	for _, ex := range last {
		for _, s := range ex.Path.All() {
			// libpcap leaves out what leaves on loopback, since it comes back.
			if ours[s.NetNSName] && s.IfIndex != 0 && (s.IfName != "lo" || s.Direction == trace.DirectionRX) {
				count[dnsPacket{s.NetNSName, s.IfName, s.Direction, ex.Protocol, s.Src, s.Dst, ex.ID, s.Message}]++
			}
		}
	}
	return count
}

func comparePackets(t *testing.T, got, want map[dnsPacket]int) {
	t.Helper()
	total := 0
	for p, n := range want {
		total += n
		if got[p] != n {
			t.Errorf("tcpdump saw %d times, the tracer %d times: %s", n, got[p], p)
		}
	}
	for p, n := range got {
		if want[p] == 0 {
			t.Errorf("the tracer saw %d times, tcpdump never: %s", n, p)
		}
	}
	t.Logf("%d DNS packets in %d places and directions", total, len(want))
	// Some 450 lookups, most through a Service: with less the comparison proves nothing.
	if total < 4000 {
		t.Errorf("tcpdump saw %d DNS packets", total)
	}
}
