package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// found is what is said of a lookup whose query was dropped, and never answered.
func found(d trace.Drop, change func(*trace.Exchange)) trace.Finding {
	d.Message, d.NetNS, d.NetNSName, d.IfName = trace.MessageQuery, 7, "node", "cni0"
	ex := &trace.Exchange{Outcome: trace.OutcomeDropped, Transmissions: 1, Drops: []trace.Drop{d}}
	if change != nil {
		change(ex)
	}
	tr := &trace.Trace{Exchange: ex, Outcome: trace.OutcomeDropped}
	findings := lost(newMemory(), tr)
	if len(findings) != 1 {
		return trace.Finding{}
	}
	return findings[0]
}

// What the kernel's reason means stands in the summary, and what is to be done about it
// is the advice for that reason, not for another.
func TestDroppedOtherSaysWhatTheReasonMeans(t *testing.T) {
	for _, tc := range []struct{ reason, where, summary, advice, not string }{
		{"UDP_CSUM", "__udp4_lib_rcv", "wrong checksum", "ethtool -K", "ip neigh"},
		{"IP_RPFILTER", "ip_rcv_finish_core", "reverse path filter", "rp_filter", "ip neigh"},
		{"IP_INADDRERRORS", "ip_error", "never forwards", "net.ipv4.ip_forward", "ip neigh"},
		{"IP_INHDR", "ip_forward", "TTL", "traceroute", "ip neigh"},
		{"OTHERHOST", "ip_rcv_core", "wrong link address", "ip neigh", "ip route"},
		{"", "__dev_forward_skb2", "the device at its other end is down", "ip link set", "MTU"},
		{"SOCKET_CLOSE", "udp_destruct_common", "socket", "closed its socket", "ip neigh"},
		{"QDISC_DROP", "__dev_queue_xmit", "carrier", "tc -s qdisc", "ip neigh"},
		{"XFRM_POLICY", "xfrm4_policy_check", "IPsec", "ip xfrm", "ip neigh"},
		{"IP_OUTNOROUTES", "ip_output", "no route", "ip route get", "ip neigh"},
		{"", "ip_error", "no route, or one that refuses", "ip route get", "ip neigh"},
		{"SOMETHING_NEW", "somewhere", "SOMETHING_NEW", "the kernel's source", "ip neigh"},
		{"", "", "The kernel dropped the client's query in namespace node, at device cni0.", "nstat", "ip neigh"},
	} {
		f := found(trace.Drop{Reason: tc.reason, Where: tc.where}, nil)
		if f.Code != DroppedOther || !strings.Contains(f.Summary, tc.summary) || !strings.Contains(f.Advice, tc.advice) || strings.Contains(f.Advice, tc.not) {
			t.Errorf("%s at %s: %s: %s > %s", tc.reason, tc.where, f.Code, f.Summary, f.Advice)
		}
	}
}

// A rule of the bridge is to be looked for elsewhere than one of IP, and a queue that
// nobody reads is no rule that drops, though netfilter does.
func TestDroppedByNetfilterNamesWhose(t *testing.T) {
	for _, tc := range []struct{ reason, where, words, summary, advice string }{
		{"NETFILTER_DROP", "nft_do_chain", "netfilter hook FORWARD", "A firewall rule dropped", "iptables-save"},
		{"NETFILTER_DROP", "nft_do_chain", "netfilter hook INPUT, family bridge", "A firewall rule of the bridge dropped", "nft list ruleset bridge"},
		{"NETFILTER_DROP", "nf_hook_slow", "netfilter hook FORWARD or POSTROUTING, family bridge (ebtables or nftables)", "A firewall rule of the bridge dropped", "ebtables"},
		{"NETFILTER_DROP", "nft_do_chain", "netfilter hook INGRESS, family netdev", "A firewall rule of the device dropped", "nft list ruleset netdev"},
		{"NETFILTER_DROP", "nft_do_chain", "netfilter hook INPUT, family inet", "A firewall rule dropped", "nft list ruleset inet"},
		{"", "nf_queue", "netfilter hook INPUT, NFQUEUE without a process that takes it", "NFQUEUE", "nfnetlink_queue"},
	} {
		f := found(trace.Drop{Reason: tc.reason, Where: tc.where, Description: tc.words}, nil)
		if f.Code != DroppedByNetfilter || !strings.Contains(f.Summary, tc.summary) || !strings.Contains(f.Advice, tc.advice) {
			t.Errorf("%s: %s: %s > %s", tc.words, f.Code, f.Summary, f.Advice)
		}
	}
}

// A connection of a server's that dies, of which no attempt is known, or no client: what
// it was for is not looked for among the clients' calls.
func TestDroppedConnectionOfAServer(t *testing.T) {
	ex := &trace.Exchange{
		DNS: trace.DNS{Protocol: "tcp"}, Outcome: trace.OutcomeDropped, Transmissions: 1,
		Drops: []trace.Drop{{Message: trace.MessageQuery, Where: "nft_do_chain", Reason: "NETFILTER_DROP"}},
	}
	attempt := trace.Upstream{Attempt: &trace.Attempt{Attempt: 1, Address: "192.0.2.1:53"}, Exchange: ex}
	for _, tr := range []*trace.Trace{
		{Exchange: ex, Role: trace.RoleUpstream, Outcome: trace.OutcomeDropped},
		{Query: &trace.Query{}, Upstreams: []trace.Upstream{attempt}},
	} {
		findings := New().Trace(tr)
		if len(findings) == 0 || findings[0].Code != DroppedByNetfilter {
			t.Errorf("findings %+v, expected %s", findings, DroppedByNetfilter)
		}
		for _, f := range findings {
			if text := strings.Join(f.Evidence, "\n"); strings.Contains(text, "what the client wanted") {
				t.Errorf("evidence %q", f.Evidence)
			}
		}
	}
}

// Which route refuses a query is reported by the error that the kernel sends for it, and for which address.
func TestRouteThatRefuses(t *testing.T) {
	for _, tc := range []struct {
		icmp *trace.ICMP
		want string
	}{
		{nil, ": no route to 203.0.113.1, or one that refuses."},
		{&trace.ICMP{Type: 3, Code: 0}, ": no route to 203.0.113.1."},
		{&trace.ICMP{Type: 3, Code: 1}, ": the route to 203.0.113.1 is of the type unreachable."},
		{&trace.ICMP{Type: 3, Code: 13}, ": the route to 203.0.113.1 is of the type prohibit."},
		{&trace.ICMP{Type: 3, Code: 13, NetNS: 8}, ": no route to 203.0.113.1, or one that refuses."},
	} {
		f := found(trace.Drop{Where: "ip_error"}, func(ex *trace.Exchange) {
			ex.ServerIP = netip.MustParseAddr("203.0.113.1")
			if ex.ICMP = tc.icmp; tc.icmp != nil {
				ex.ICMP.From, ex.ICMP.Message = netip.MustParseAddr("10.244.0.1"), trace.MessageQuery
				if ex.ICMP.NetNS == 0 {
					ex.ICMP.NetNS = ex.Drops[0].NetNS
				}
			}
		})
		if !strings.HasSuffix(f.Summary, tc.want) || !strings.Contains(f.Advice, "ip route get 203.0.113.1") {
			t.Errorf("%+v, want %q", f, tc.want)
		}
	}
}

// A pod that asks a Service which leads to itself: its port of the bridge would have to send what came
// in by it. What a bridge drops otherwise is not said to be of a kind "bridge".
func TestServiceThatLeadsBack(t *testing.T) {
	for _, tc := range []struct {
		to, summary, advice string
	}{
		{"10.0.0.2", "led the client's query back to its sender: the bridge (no hairpin) dropped it in", "hairpin on"},
		{"10.244.0.9", "does not forward the client's query.", "bridge -d link show"},
	} {
		f := found(trace.Drop{Message: trace.MessageQuery, Where: "br_handle_frame_finish", Description: "bridge", IfName: "veth1"}, func(ex *trace.Exchange) {
			ex.ClientIP, ex.NAT = netip.MustParseAddr("10.0.0.2"), &trace.NAT{ServerIP: netip.MustParseAddr(tc.to), Source: trace.NATConntrack}
		})
		if f.Code != DroppedOther || !strings.Contains(f.Summary, tc.summary) || !strings.Contains(f.Advice, tc.advice) || len(f.Advice) > 130 {
			t.Errorf("%+v", f)
		}
	}
}

// A bridge gives all of its pods what is for the link address of one that is gone: it is the
// entry that led there, and not the pod that has another link address.
func TestLinkAddressOfAPodThatIsGone(t *testing.T) {
	gone := netip.MustParseAddr("10.244.0.9")
	f := found(trace.Drop{Message: trace.MessageQuery, Reason: "OTHERHOST", Where: "ip_rcv_core"}, func(ex *trace.Exchange) {
		ex.Protocol, ex.NAT = "udp", &trace.NAT{ServerIP: gone, Source: trace.NATConntrack}
	})
	if f.Code != DroppedOther || !strings.Contains(f.Summary, "wrong link address (MAC) for 10.244.0.9") || !strings.Contains(f.Advice, "conntrack -D -p udp --reply-src 10.244.0.9") || len(f.Advice) > 130 {
		t.Errorf("%+v", f)
	}
}

// kube-proxy rejects what is sent to a Service without endpoints, also where Kubernetes is not
// asked: it is not translated, and the port is said to be closed.
func TestRejectedForWantOfEndpoints(t *testing.T) {
	for _, tc := range []struct {
		code       uint8
		translated bool
		want       bool
	}{{3, false, true}, {3, true, false}, {13, false, false}} {
		f := found(trace.Drop{Message: trace.MessageQuery, Reason: "NETFILTER_DROP", Where: "nft_do_chain", Offset: 10}, func(ex *trace.Exchange) {
			ex.ICMP = &trace.ICMP{Type: 3, Code: tc.code, From: netip.MustParseAddr("10.244.0.1"), Message: trace.MessageQuery, NetNS: ex.Drops[0].NetNS}
			if tc.translated {
				ex.NAT = &trace.NAT{ServerIP: netip.MustParseAddr("10.244.0.9"), Source: trace.NATConntrack}
			}
		})
		if got := strings.Contains(f.Advice, "endpointslices"); got != tc.want || !strings.Contains(f.Summary, "rejected") || len(f.Advice) > 130 {
			t.Errorf("code %d: %+v", tc.code, f)
		}
	}
}
