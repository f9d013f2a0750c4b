package capture

import (
	"testing"
)

func TestDropDescription(t *testing.T) {
	for _, tc := range []struct {
		name string
		site dropSite
		want string
	}{
		{"nftables", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_ipv4", "nf_hook_slow", "ip_forward", "ip_rcv"}}, "netfilter hook FORWARD"},
		{"legacy iptables", dropSite{reason: "NETFILTER_DROP", where: "nf_hook_slow", device: true,
			callers: []string{"nf_hook_slow", "ip_local_deliver"}}, "netfilter hook INPUT"},
		{"without a reason", dropSite{where: "nf_hook_slow", device: true, callers: []string{"nf_hook_slow", "ip_rcv"}}, "netfilter hook PREROUTING"},
		{"bridged", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"nf_hook_slow", "br_nf_forward_ip.part", "br_nf_forward", "__br_forward"}}, "netfilter hook FORWARD"},
		{"to the bridge's own host", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_bridge", "nf_hook_slow", "br_pass_frame_up", "br_handle_frame_finish", "br_handle_frame", "__netif_receive_skb_core"}}, "netfilter hook INPUT, family bridge"},
		{"into the bridge", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_bridge", "br_handle_frame", "__netif_receive_skb_core"}}, "netfilter hook PREROUTING, family bridge"},
		{"from the host into the bridge", dropSite{reason: "NETFILTER_DROP", where: "nf_hook_slow", device: true,
			callers: []string{"nf_hook_slow", "__br_forward", "br_forward", "br_dev_xmit", "dev_hard_start_xmit", "__dev_queue_xmit"}}, "netfilter hook OUTPUT or POSTROUTING, family bridge (ebtables or nftables)"},
		{"between ports", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"nft_do_chain", "nft_do_chain_bridge", "nf_hook_slow", "__br_forward", "br_handle_frame_finish"}}, "netfilter hook FORWARD or POSTROUTING, family bridge"},
		{"out of a port", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"nft_do_chain", "nft_do_chain_bridge", "nf_hook_slow", "br_forward_finish", "__br_forward"}}, "netfilter hook POSTROUTING, family bridge"},
		{"a table inet", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_inet", "nf_hook_slow", "ip_local_deliver"}}, "netfilter hook INPUT, family inet"},
		{"a table netdev", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"nft_do_chain", "nft_do_chain_netdev", "nf_hook_slow", "__netif_receive_skb_core"}}, "netfilter hook INGRESS, family netdev"},
		{"a hook that nobody knows, far within a device", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain", device: true,
			callers: []string{"nft_do_chain", "nf_hook_slow", "some_new_hook", "__netif_receive_skb_core"}}, "netfilter"},
		{"nobody at the bridge's queue", dropSite{where: "nf_queue", device: true, callers: []string{"nf_queue", "nf_hook_slow", "br_pass_frame_up"}},
			"netfilter hook INPUT, family bridge (ebtables or nftables), NFQUEUE without a process that takes it"},
		{"on the way out, callers hidden", dropSite{reason: "NETFILTER_DROP"}, "netfilter hook OUTPUT"},
		{"callers hidden", dropSite{reason: "NETFILTER_DROP", device: true}, "netfilter"},
		{"clash", dropSite{reason: "NETFILTER_DROP", where: "nf_hook_slow", device: true, tracked: true,
			callers: []string{"nf_hook_slow", "ip_output"}}, "netfilter hook POSTROUTING, by a rule or a conntrack insert clash"},
		{"a known connection", dropSite{reason: "NETFILTER_DROP", where: "nf_hook_slow", device: true, tracked: true, status: ctConfirmed,
			callers: []string{"nf_hook_slow", "ip_output"}}, "netfilter hook POSTROUTING"},
		{"not the last hook", dropSite{reason: "NETFILTER_DROP", where: "nf_hook_slow", device: true, tracked: true,
			callers: []string{"nf_hook_slow", "ip_forward"}}, "netfilter hook FORWARD"},
		{"no socket", dropSite{reason: "NO_SOCKET", where: "__udp4_lib_rcv", device: true}, "no socket"},
		{"no socket, no reason", dropSite{where: "__udp4_lib_rcv", device: true}, "no socket, or a wrong checksum"},
		{"TCP, no reason", dropSite{where: "tcp_v6_rcv", device: true}, "no socket, a wrong checksum, a filter or IPsec"},
		{"receive buffer, no reason", dropSite{where: "udpv6_queue_rcv_one_skb"}, "receive buffer full, a socket filter, or a wrong checksum"},
		{"no way back, no reason", dropSite{where: "ip_rcv_finish_core"}, "no route, or reverse path filter"},
		{"blackhole route", dropSite{where: "dst_discard"}, "route that refuses"},
		{"receive buffer", dropSite{reason: "SOCKET_RCVBUFF", where: "udp_queue_rcv_one_skb"}, "receive buffer full"},
		{"no route", dropSite{reason: "IP_INNOROUTES", where: "ip_error"}, "no route"},
		{"unreachable route", dropSite{where: "ip_error"}, "no route, or one that refuses"},
		{"no route from here", dropSite{reason: "IP_OUTNOROUTES"}, "no route"},
		{"dead pod", dropSite{reason: "NEIGH_FAILED", where: "neigh_invalidate"}, "neighbour unresolved"},
		{"unread", dropSite{where: "udp_destruct_common"}, "socket closed with the packet unread"},
		{"queue full", dropSite{reason: "QDISC_DROP_OVERLIMIT", where: "__dev_queue_xmit"}, "queue of the device full"},
		{"tc", dropSite{reason: "TC_INGRESS", where: "sch_handle_ingress"}, "traffic control program, incoming"},
		{"cgroup", dropSite{reason: "SOCKET_FILTER", where: "udp_queue_rcv_one_skb"}, "eBPF program of the cgroup, incoming, or a socket filter"},
		{"XDP", dropSite{where: "veth_xdp_rcv_skb", device: true}, "XDP program"},
		{"redirected", dropSite{where: "skb_do_redirect", device: true}, "redirected by an eBPF program to no device that takes it"},
		{"nobody at the queue", dropSite{where: "nf_queue", device: true, callers: []string{"nf_queue", "nf_hook_slow", "ip_local_deliver"}},
			"netfilter hook INPUT, NFQUEUE without a process that takes it"},
		{"accept queue", dropSite{reason: "TCP_LISTEN_OVERFLOW", where: "tcp_v4_rcv"}, "accept queue full"},
		{"a place that we do not know", dropSite{where: "some_driver_xmit", device: true}, ""},
		{"nothing known", dropSite{device: true}, ""},
	} {
		if got := dropDescription(tc.site); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestDropBPF(t *testing.T) {
	for _, tc := range []struct {
		name string
		site dropSite
		want string
	}{
		{"tc, incoming", dropSite{reason: "TC_INGRESS", where: "__netif_receive_skb_core"}, BPFTCIngress},
		{"tc, outgoing", dropSite{reason: "TC_EGRESS", where: "__dev_queue_xmit"}, BPFTCEgress},
		{"XDP with a reason", dropSite{reason: "XDP"}, BPFXDP},
		{"XDP, generic", dropSite{where: "do_xdp_generic"}, BPFXDP},
		{"XDP of veth", dropSite{where: "veth_xdp_rcv_skb"}, BPFXDP},
		{"cgroup, outgoing", dropSite{reason: "BPF_CGROUP_EGRESS", where: "ip_finish_output"}, BPFCgroupEgress},
		{"at the socket", dropSite{reason: "SOCKET_FILTER", where: "tcp_v4_rcv"}, BPFSocketFilter},
		{"redirected to no device", dropSite{where: "skb_do_redirect"}, BPFRedirect},
		{"redirected to a device that is down", dropSite{where: "____dev_forward_skb",
			callers: []string{"sk_skb_reason_drop", "____dev_forward_skb", "__bpf_redirect", "skb_do_redirect", "__netif_receive_skb_core"}}, BPFRedirect},
		{"given by another to a device that is down", dropSite{where: "____dev_forward_skb",
			callers: []string{"sk_skb_reason_drop", "____dev_forward_skb", "macvlan_queue_xmit", "skb_do_redirect"}}, ""},
		{"given by nobody known", dropSite{where: "dev_forward_skb"}, ""},
		{"full queue behind a redirection", dropSite{reason: "QDISC_DROP", where: "__dev_queue_xmit", callers: []string{"__dev_queue_xmit", "skb_do_redirect"}}, ""},
		{"netfilter", dropSite{reason: "NETFILTER_DROP", where: "nft_do_chain"}, ""},
		{"nothing known", dropSite{}, ""},
	} {
		if got := dropBPF(tc.site); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestIsDrop(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Packet
		want bool
	}{
		{"read", Packet{Reason: "CONSUMED"}, false},
		{"freed as if dropped", Packet{Reason: "NOT_DROPPED_YET"}, false},
		{"flooded by a bridge", Packet{Reason: "OTHERHOST", otherHost: true}, false},
		{"merged into what came before", Packet{Reason: "TCP_OFOMERGE"}, false},
		{"received before", Packet{Reason: "TCP_OLD_DATA"}, false},
		{"tcpdump's copy", Packet{Reason: "PACKET_SOCK_ERROR", Where: "packet_rcv"}, false},
		{"tcpdump's copy, places hidden", Packet{Reason: "PACKET_SOCK_ERROR"}, false},
		{"tcpdump's copy before Linux 6.9", Packet{Where: "tpacket_rcv"}, false},
		{"a raw socket's copy", Packet{Reason: "SOCKET_RCVBUFF", Where: "raw_rcv_skb"}, false},
		{"a raw socket's copy, IPv6", Packet{Reason: "SOCKET_RCVBUFF", Where: "rawv6_rcv"}, false},
		{"flooded by a bridge before Linux 5.18", Packet{Where: "ip_rcv_core", otherHost: true}, false},
		{"flooded by a bridge before Linux 5.18, IPv6", Packet{Where: "ip6_rcv_core", otherHost: true}, false},
		{"a fragment of what was put together", Packet{Where: "skb_release_data"}, false},

		{"the server's buffer", Packet{Reason: "SOCKET_RCVBUFF", Where: "udp_queue_rcv_one_skb"}, true},
		{"a firewall", Packet{Reason: "NETFILTER_DROP", Where: "nft_do_chain"}, true},
		{"a firewall between the ports of a bridge", Packet{Where: "nf_hook_slow", otherHost: true}, true},
		{"a malformed packet", Packet{Reason: "IP_INHDR", Where: "ip_rcv_core", otherHost: true}, true},
		{"a malformed packet before Linux 5.17", Packet{Where: "ip_rcv_core"}, true},
		{"another machine's, places hidden", Packet{otherHost: true}, true},
		{"nothing known", Packet{}, true},
	} {
		if got := isDrop(&tc.p); got != tc.want {
			t.Errorf("%s: %t, expected %t", tc.name, got, tc.want)
		}
	}
}
