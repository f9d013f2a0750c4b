//go:build peers

package peers

import (
	"net/netip"
	"os"
	"path/filepath"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// message is a DNS message on the wire.
type message struct {
	src, dst netip.Addr
	*dns.Msg
}

// capture writes what CoreDNS's pod sends and gets to a file.
func (r *rig) capture() {
	r.t.Helper()
	r.packets = filepath.Join(r.Dir(), "coredns.pcap")
	if _, err := r.Start(lab.Spec{
		Name: "tcpdump", Host: lab.CoreDNS, Path: "tcpdump", Ready: lab.ReadyLine("listening on"),
		// As root, since another user could not write to the lab's folder.
		Args: []string{"-i", "eth0", "--immediate-mode", "-U", "-Z", "root", "-w", r.packets, "port 53"},
	}); err != nil {
		r.t.Fatalf("%v (of the Debian package tcpdump)", err)
	}
}

// wire are the messages for a name that CoreDNS's pod has sent and got so far, in order.
func (r *rig) wire(name string) []message {
	r.t.Helper()
	f, err := os.Open(r.packets)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	reader, err := pcapgo.NewReader(f)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []message
	for {
		data, _, err := reader.ReadPacketData()
		if err != nil {
			return all // its end, or a packet that is not whole yet
		}
		if m, ok := dissect(data); ok && len(m.Question) == 1 && dns.CanonicalName(m.Question[0].Name) == name {
			all = append(all, m)
		}
	}
}

// dissect takes a packet apart. Over TCP, each of the messages here is one segment.
func dissect(data []byte) (message, bool) {
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
	ip, ok := p.NetworkLayer().(*layers.IPv4)
	if !ok {
		return message{}, false
	}
	var payload []byte
	switch transport := p.TransportLayer().(type) {
	case *layers.UDP:
		payload = transport.Payload
	case *layers.TCP:
		if len(transport.Payload) > 2 {
			payload = transport.Payload[2:]
		}
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP.To4())
	dst, _ := netip.AddrFromSlice(ip.DstIP.To4())
	m := message{src, dst, new(dns.Msg)}
	return m, payload != nil && m.Unpack(payload) == nil
}

// between waits for the query for a name from one host to another, and its response.
func (r *rig) between(from, to, name string) (query, response *dns.Msg) {
	r.t.Helper()
	src, dst := r.Host(from).V4, r.Host(to).V4
	r.wait(name+" on the wire from "+from+" to "+to, func() bool {
		for _, m := range r.wire(name) {
			switch {
			case !m.Response && m.src == src && m.dst == dst:
				query = m.Msg
			case m.Response && m.src == dst && m.dst == src:
				response = m.Msg
			}
		}
		return query != nil && response != nil
	})
	return query, response
}

// optionData is the data of each TRACEPARENT option of a message.
func optionData(m *dns.Msg) [][]byte {
	var all [][]byte
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if local, ok := o.(*dns.EDNS0_LOCAL); ok && local.Code == trace.DefaultOptionCode {
				all = append(all, local.Data)
			}
		}
	}
	return all
}
