package onkernel

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
	"github.com/dnstrace/dnstrace/trace"
)

// ask sends a query and does not wait for an answer.
func ask(t *testing.T, server, name string) {
	t.Helper()
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	// A firewall of the sender's own makes it an error.
	if _, err := conn.Write(query); err != nil {
		t.Logf("%s: %v", name, err)
	}
}

// withoutReason are the words where the kernel says only at which place it was, and
// that place drops for several reasons.
var withoutReason = map[string]string{
	"no route":            "no route, or one that refuses",
	"no socket":           "no socket, or a wrong checksum",
	"receive buffer full": "receive buffer full, a socket filter, or a wrong checksum",
}

// dropped wants a query's drop: why, where the kernel says so, and where in any
// case.
func (tr *tracer) dropped(name, reason, words string) *trace.Exchange {
	tr.t.Helper()
	ex := tr.exchange(name)
	if lacks(tr.t, feature.Reason) {
		reason, words = "", cmp.Or(withoutReason[words], words)
	}
	if d := ex.LastDrop(); ex.Outcome != trace.OutcomeDropped || d == nil || d.Reason != reason || d.Description != words || d.Where == "" {
		tr.t.Errorf("%s: outcome %s, drop %+v, expected %s %q", name, ex.Outcome, d, reason, words)
	} else {
		tr.t.Logf("%s: %q in %s", name, words, d.Where)
	}
	return ex
}

func TestNoSocket(t *testing.T) {
	proves(t, feature.DropPlace)
	proves(t, feature.ICMP)
	tr := startTracer(t)
	for _, tc := range []struct {
		name, server string
		kind, code   uint8 // of the error that comes back (RFC 792, RFC 4443)
	}{
		{"nobody4.test.", "127.0.0.2:53", 3, 3},
		{"nobody6.test.", "[::1]:53", 1, 4},
	} {
		ask(t, tc.server, tc.name)
		ex := tr.dropped(tc.name, "NO_SOCKET", "no socket")
		if i := ex.ICMP; i == nil || i.Type != tc.kind || i.Code != tc.code || i.Message != trace.MessageQuery {
			t.Errorf("%s: the ICMP error about it is %+v", tc.name, i)
		}
	}
}

// A server that does not read, with as small a buffer as there may be.
func TestReceiveBufferFull(t *testing.T) {
	tr := startTracer(t)
	for _, address := range []string{"127.0.0.3:53", "[::1]:53"} {
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.(*net.UDPConn).SetReadBuffer(1); err != nil {
			t.Fatal(err)
		}
		const queries = 20
		family := map[bool]string{true: "v6", false: "v4"}[strings.HasPrefix(address, "[")]
		for i := range queries {
			ask(t, address, fmt.Sprintf("full%d.%s.test.", i, family))
		}
		if ex := tr.exchange("full0." + family + ".test."); ex.Outcome != trace.OutcomeUnanswered || ex.LastDrop() != nil {
			t.Errorf("the first had room: outcome %s, drop %+v", ex.Outcome, ex.LastDrop())
		}
		tr.dropped(fmt.Sprintf("full%d.%s.test.", queries-1, family), "SOCKET_RCVBUFF", "receive buffer full")
	}
}

// A socket that is closed with datagrams in it, which have something else in place of their
// device by then.
func TestClosedUnread(t *testing.T) {
	tr := startTracer(t)
	for _, address := range []string{"127.0.0.8:53", "[::1]:53"} {
		for i := range 20 {
			conn, err := net.ListenPacket("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			ask(t, address, fmt.Sprintf("unread%d.test.", i))
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(time.Second) // the kernel frees sockets when all processors have been idle
	for i := range 20 {
		name := fmt.Sprintf("unread%d.test.", i)
		ex := tr.exchange(name)
		d := ex.LastDrop()
		if ex.Outcome != trace.OutcomeDropped || d == nil || d.Where == "" || d.IfName != "" {
			t.Errorf("%s: outcome %s, drop %+v", name, ex.Outcome, d)
		}
	}
}

func TestNftablesDrop(t *testing.T) {
	if lacks(t, feature.Nftables) {
		return
	}
	tr := startTracer(t)
	run(t, `table inet dnstrace_test {
		chain output { type filter hook output priority filter; ip daddr 127.0.0.4 drop; }
		chain input { type filter hook input priority filter; ip daddr 127.0.0.5 drop; }
		chain prerouting { type filter hook prerouting priority filter; ip daddr 127.0.0.6 drop; }
		chain postrouting { type filter hook postrouting priority filter; ip daddr 127.0.0.7 drop; }
	}`, "nft", "-f", "-")
	defer run(t, "", "nft", "delete", "table", "inet", "dnstrace_test")
	hooks := map[string]string{
		"127.0.0.4:53": "OUTPUT", "127.0.0.5:53": "INPUT", "127.0.0.6:53": "PREROUTING", "127.0.0.7:53": "POSTROUTING",
	}
	for server, hook := range hooks {
		ask(t, server, strings.ToLower(hook)+".test.")
	}
	for _, hook := range hooks {
		tr.dropped(strings.ToLower(hook)+".test.", "NETFILTER_DROP", "netfilter hook "+hook)
	}
}

// Programs as hooks of netfilter, since Linux 6.4: they need no module.
func TestNetfilterProgramDrop(t *testing.T) {
	lack := lacks(t, feature.Program)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "drop", Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, // NF_DROP
	})
	if lack != (err != nil) {
		t.Fatalf("load: %v", err)
	}
	if lack {
		return
	}
	tr := startTracer(t)
	defer prog.Close()
	const ipv4 = 2                                                                                         // NFPROTO_IPV4
	hooks := map[string]link.NetfilterInetHook{"PREROUTING": 0, "INPUT": 1, "OUTPUT": 3, "POSTROUTING": 4} // enum nf_inet_hooks
	for name, hook := range hooks {
		l, err := link.AttachNetfilter(link.NetfilterOptions{Program: prog, ProtocolFamily: ipv4, Hook: hook})
		if err != nil {
			t.Fatal(err)
		}
		ask(t, "127.0.0.8:53", "program-"+strings.ToLower(name)+".test.")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name := range hooks {
		tr.dropped("program-"+strings.ToLower(name)+".test.", "NETFILTER_DROP", "netfilter hook "+name)
	}
}
