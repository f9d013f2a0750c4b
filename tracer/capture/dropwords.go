package capture

import (
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/bpf"
)

// dropSite is what is known of a place where the kernel gave up a packet.
type dropSite struct {
	reason  string   // by the kernel's name; empty: none given
	where   string   // function that freed the packet; empty: not readable
	callers []string // the functions that led there, innermost first
	device  bool     // the packet had one
	tracked bool     // connection tracking has an entry of the packet
	status  uint32   // that entry's enum ip_conntrack_status
}

// IPS_CONFIRMED (include/uapi/linux/netfilter/nf_conntrack_common.h): the entry is
// in the table. A new one gets there at the last hook of its first packet.
const ctConfirmed = 1 << 3

// reasonWords are the reasons (include/net/dropreason-core.h) that say all that
// there is to say.
var reasonWords = map[string]string{
	"NO_SOCKET":                "no socket",
	"SOCKET_FILTER":            "eBPF program of the cgroup, incoming, or a socket filter",
	"SOCKET_RCVBUFF":           "receive buffer full",
	"SOCKET_BACKLOG":           "socket backlog full",
	"SOCKET_CLOSE":             "socket closed with the packet unread",
	"PROTO_MEM":                "protocol memory limit reached",
	"UDP_CSUM":                 "wrong checksum",
	"TCP_CSUM":                 "wrong checksum",
	"IP_CSUM":                  "wrong checksum",
	"SKB_CSUM":                 "wrong checksum",
	"PKT_TOO_SMALL":            "packet cut short",
	"HDR_TRUNC":                "packet cut short",
	"PKT_TOO_BIG":              "packet larger than the path's MTU",
	"IP_NOPROTO":               "no such protocol",
	"IP_RPFILTER":              "reverse path filter",
	"IP_INADDRERRORS":          "address not routable here",
	"IP_INVALID_SOURCE":        "invalid source address",
	"IP_LOCALNET":              "loopback address from outside",
	"IP_LOCAL_SOURCE":          "own address as source from outside",
	"IP_OUTNOROUTES":           "no route",
	"IP_INNOROUTES":            "no route",
	"NEIGH_CREATEFAIL":         "neighbour table full",
	"NEIGH_FAILED":             "neighbour unresolved",
	"NEIGH_QUEUEFULL":          "neighbour unresolved, its queue full",
	"NEIGH_DEAD":               "neighbour gone",
	"QDISC_DROP":               "queue of the device full",
	"QDISC_OVERLIMIT":          "queue of the device full",
	"QDISC_CONGESTED":          "queue of the device congested",
	"QDISC_BURST_DROP":         "queue of the device full",
	"QDISC_DROP_GENERIC":       "queue of the device full",
	"QDISC_DROP_OVERLIMIT":     "queue of the device full",
	"QDISC_DROP_CONGESTED":     "queue of the device congested",
	"QDISC_DROP_FLOW_LIMIT":    "queue of the device full",
	"CPU_BACKLOG":              "receive queue of the CPU full",
	"FULL_RING":                "ring of the device full",
	"XDP":                      "XDP program",
	"TC_INGRESS":               "traffic control program, incoming",
	"TC_EGRESS":                "traffic control program, outgoing",
	"BPF_CGROUP_EGRESS":        "eBPF program of the cgroup, outgoing",
	"DEV_READY":                "device down",
	"DEV_HDR":                  "no room for the link header",
	"QUEUE_PURGE":              "queue emptied with the packet unread",
	"SECURITY_HOOK":            "security module",
	"UNHANDLED_PROTO":          "no such protocol",
	"TCP_INVALID_SYN":          "connection attempt refused",
	"TCP_ABORT_ON_DATA":        "socket closed with the packet unread",
	"IP_INVALID_DEST":          "invalid destination address",
	"IPV6DISABLED":             "IPv6 is disabled",
	"NOMEM":                    "out of memory",
	"XFRM_POLICY":              "IPsec policy",
	"UNICAST_IN_L2_MULTICAST":  "unicast address in a multicast frame",
	"FRAG_REASM_TIMEOUT":       "fragments missing",
	"FRAG_TOO_FAR":             "fragments missing",
	"DUP_FRAG":                 "fragment repeated",
	"IPV6_NDISC_BAD_OPTIONS":   "bad neighbour discovery",
	"TCP_LISTEN_OVERFLOW":      "accept queue full",
	"TCP_FLAGS":                "connection refused: unexpected TCP flags",
	"TCP_RESET":                "connection reset",
	"TCP_CLOSE":                "connection closed",
	"TCP_OVERWINDOW":           "beyond the receive window",
	"TCP_ZEROWINDOW":           "receive window closed",
	"TCP_OFO_QUEUE_PRUNE":      "receive buffer full",
	"TCP_RFC7323_PAWS":         "old TCP timestamp",
	"TCP_INVALID_SEQUENCE":     "TCP sequence number out of range",
	"TCP_INVALID_ACK_SEQUENCE": "TCP acknowledgement out of range",
	"TCP_MD5FAILURE":           "TCP MD5 signature wrong",
	"NETFILTER_DROP":           "netfilter",
	"VXLAN_VNI_NOT_FOUND":      "unknown VXLAN network",
	"VXLAN_INVALID_HDR":        "malformed VXLAN header",
	"BRIDGE_INGRESS_STP_STATE": "bridge port blocked",
	"TUNNEL_TXINFO":            "tunnel without a destination",
	"RECURSION_LIMIT":          "too many nested devices",
	"TAP_FILTER":               "filter of the tap device",
	"TAP_TXFILTER":             "filter of the tap device",
	"NO_TX_TARGET":             "no device to send through",
}

// What a place without a reason leaves open.
const (
	noUDPSocket = "no socket, or a wrong checksum"
	noTCPSocket = "no socket, a wrong checksum, a filter or IPsec"
	fullSocket  = "receive buffer full, a socket filter, or a wrong checksum"
	noRoute     = "no route, or one that refuses"
)

// placeWords are functions (in net/) that tell, for kernels and places that give no
// reason. A function that frees packets for several says them all.
var placeWords = map[string]string{
	"neigh_invalidate":        "neighbour unresolved",
	"__neigh_event_send":      "neighbour unresolved",
	"ip_error":                noRoute,
	"ip6_pkt_drop":            noRoute,
	"__udp4_lib_rcv":          noUDPSocket,
	"__udp6_lib_rcv":          noUDPSocket,
	"udp_rcv":                 noUDPSocket,
	"udpv6_rcv":               noUDPSocket,
	"tcp_v4_rcv":              noTCPSocket,
	"tcp_v6_rcv":              noTCPSocket,
	"udp_queue_rcv_one_skb":   fullSocket,
	"udpv6_queue_rcv_one_skb": fullSocket,
	"udp_destruct_common":     "socket closed with the packet unread",
	"ip_rcv_finish_core":      "no route, or reverse path filter",
	"dst_discard_out":         "route that refuses",
	"dst_discard":             "route that refuses",
	"tcf_classify":            "traffic control program",
	"sch_handle_ingress":      "traffic control program, incoming",
	"sch_handle_egress":       "traffic control program, outgoing",
	"do_xdp_generic":          "XDP program",
	"veth_xdp_rcv_skb":        "XDP program",
	"skb_do_redirect":         "redirected by an eBPF program to no device that takes it",
	"enqueue_to_backlog":      "receive queue of the CPU full",
	"ip_forward":              "not forwarded",
	"ip6_forward":             "not forwarded",
	"br_handle_frame_finish":  "bridge",
	"__br_forward":            "bridge",
	"ip_fragment":             "packet larger than the path's MTU",
	"ip_finish_output":        "eBPF program of the cgroup, outgoing",
}

// hooks are the functions (net/ipv4, net/ipv6, net/bridge) that run a chain of
// netfilter, by the name that iptables and nftables give the hook.
var hooks = map[string]string{
	"ip_rcv": "PREROUTING", "ipv6_rcv": "PREROUTING", "ip_list_rcv": "PREROUTING", "ipv6_list_rcv": "PREROUTING",
	"ip_sublist_rcv": "PREROUTING", "ip6_sublist_rcv": "PREROUTING",
	"br_nf_pre_routing": "PREROUTING", "br_nf_pre_routing_ipv6": "PREROUTING",
	"ip_local_deliver": "INPUT", "ip6_input": "INPUT",
	"ip_forward": "FORWARD", "ip6_forward": "FORWARD",
	"br_nf_forward_ip": "FORWARD", "br_nf_forward": "FORWARD", "__br_forward": "FORWARD",
	"__ip_local_out": "OUTPUT", "__ip6_local_out": "OUTPUT", "ip_local_out": "OUTPUT", "ip6_local_out": "OUTPUT", "ip6_xmit": "OUTPUT",
	"ip_output": "POSTROUTING", "ip6_output": "POSTROUTING", "ip_mc_output": "POSTROUTING", "br_nf_post_routing": "POSTROUTING",
	"nf_ingress": "INGRESS", "__netif_receive_skb_core": "INGRESS",
	"nf_hook_egress": "EGRESS", "__dev_queue_xmit": "EGRESS",
}

// nfQueue frees what is to be queued to a process and finds none, or a full queue
// (net/netfilter/nf_queue.c).
const nfQueue = "nf_queue"

// netfilterPlaces free what a rule, or connection tracking, refuses.
var netfilterPlaces = []string{"nf_hook_slow", nfQueue, "nft_do_chain", "nf_hook_slow_list", "ipt_do_table", "ip6t_do_table"}

// dropWords says in words why a packet was dropped, or "" where reason and place
// do not tell.
func dropWords(s dropSite) string {
	if s.reason == "NETFILTER_DROP" || slices.Contains(netfilterPlaces, s.where) {
		return netfilterWords(s)
	}
	if words := reasonWords[s.reason]; words != "" {
		return words
	}
	return placeWords[s.where]
}

// netfilterWords names the hook, which the callers tell. An entry that is not in
// the table yet, dropped by the last hook it has to pass and not by a rule, is
// what a clash of two packets of one new connection leaves; iptables-legacy drops
// at the same place, so it is not proven.
func netfilterWords(s dropSite) string {
	words := "netfilter"
	hook := ""
	for _, c := range s.callers {
		if hook = hooks[c]; hook != "" {
			words = "netfilter hook " + hook
			break
		}
	}
	if hook == "" && !s.device {
		hook, words = "OUTPUT", "netfilter hook OUTPUT"
	}
	if s.where == nfQueue {
		return words + ", NFQUEUE without a process that takes it"
	}
	last := hook == "POSTROUTING" || hook == "INPUT"
	if last && s.where == "nf_hook_slow" && s.tracked && s.status&ctConfirmed == 0 {
		words += ", by a rule or a conntrack insert clash"
	}
	return words
}

// notDropped are reasons that are none: the packet did its duty (SKB_CONSUMED), or
// nobody misses it: what a bridge floods to ports whose host it is not for, what
// TCP has already, and the copy of one who watches (copyPlaces).
var notDropped = []string{"CONSUMED", "NOT_DROPPED_YET", "OTHERHOST", "TCP_OFOMERGE", "TCP_OLD_DATA", "PACKET_SOCK_ERROR"}

// copyPlaces free copies that packet sockets (net/packet/af_packet.c) and raw ones
// (net/ipv4/raw.c, net/ipv6/raw.c) got and have no room for: tcpdump is too slow, and
// nobody else misses them.
var copyPlaces = []string{
	"packet_rcv", "packet_rcv_spkt", "packet_rcv_fanout", "tpacket_rcv",
	"raw_rcv", "raw_rcv_skb", "raw_local_deliver", "rawv6_rcv", "rawv6_rcv_skb", "raw6_local_deliver",
}

// otherHostPlaces free what is another machine's, for which Linux has a reason since
// 5.18 (net/ipv4/ip_input.c, net/ipv6/ip6_input.c). What a bridge forwards is marked
// as another machine's too, so the place has to tell.
var otherHostPlaces = []string{"ip_rcv", "ip_rcv_core", "ip_list_rcv", "ipv6_rcv", "ip6_rcv_core", "ipv6_list_rcv"}

// isDrop tells whether somebody misses the packet that was freed.
func isDrop(p *Packet) bool {
	if slices.Contains(notDropped, p.Reason) || slices.Contains(copyPlaces, p.Where) {
		return false
	}
	return !p.otherHost || p.Reason != "" || !slices.Contains(otherHostPlaces, p.Where)
}

// isUnresolved tells whether a packet was dropped that waited for a link address.
func isUnresolved(p *Packet) bool {
	return strings.HasPrefix(p.Words, reasonWords["NEIGH_FAILED"])
}

func (d *decoder) dropped(p *Packet, drop *bpf.DnstraceDrop) {
	addresses := []uint64{drop.Location}
	for _, c := range drop.Callers {
		if c == 0 {
			break
		}
		addresses = append(addresses, c)
	}
	names := d.symbols.names(addresses)
	if drop.CtMax != 0 {
		p.Table = &Table{Count: drop.CtCount, Max: drop.CtMax}
	}
	p.Where = names[0]
	p.Reason = d.reasons[drop.Reason]
	p.otherHost = drop.OtherHost != 0
	site := dropSite{
		reason: p.Reason, where: p.Where, callers: names[1:],
		device: p.IfIndex != 0, tracked: drop.CtKnown != 0, status: drop.CtStatus,
	}
	p.Words, p.BPF = dropWords(site), dropBPF(site)
}
