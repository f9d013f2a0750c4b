// Package dropreason says what the kernel's reasons for dropping a packet mean, for a
// packet that carries DNS, and what to do about each.
//
// The reasons are those of enum skb_drop_reason (include/net/dropreason-core.h, from Linux
// 5.17 on) and of the lists of queueing disciplines and of Open vSwitch, by their names
// without SKB_DROP_REASON_: numbers differ from kernel to kernel.
package dropreason

import (
	"slices"
	"strings"
)

// Enums are the kernel's lists of reasons: the core's and those of subsystems (include/net/
// dropreason.h), which carry the subsystem's number in their upper half. Queueing
// disciplines have their own since Linux 7.2.
var Enums = []string{"skb_drop_reason", "qdisc_drop_reason", "ovs_drop_reason"}

// Name returns the name of a reason as it is used here, by its name in the kernel.
func Name(kernel string) string {
	name, ok := strings.CutPrefix(kernel, "SKB_DROP_REASON_")
	if !ok { // SKB_CONSUMED, SKB_NOT_DROPPED_YET
		name = strings.TrimPrefix(name, "SKB_")
	}
	return name
}

// Reason says why a packet was dropped.
type Reason struct {
	Description string // what it means, as a phrase; empty: unknown
	Advice      string // what to do, in sentences
}

// Of explains a drop by its reason and its place, the name of the kernel's function that
// freed the packet. Either may be empty. Description is empty where both are unknown.
func Of(reason, where string) Reason {
	switch {
	case reason == "IP_INHDR" && slices.Contains(forwarders, where):
		return Reason{"TTL or hop limit used up", adviceLoop}
	case reason != "":
		if r, ok := reasons[reason]; ok {
			return r
		}
	default:
		if r, ok := places[where]; ok {
			return r
		}
	}
	return Reason{Advice: adviceUnknown}
}

// forwarders pass a packet on to another host, and count down its TTL.
var forwarders = []string{"ip_forward", "ip6_forward", "ip_mr_forward", "ip6_mr_forward"}

// Unresolved tells whether a packet was dropped because nobody had the link address of the
// next hop.
func Unresolved(reason, where string) bool {
	switch reason {
	case "NEIGH_FAILED", "NEIGH_QUEUEFULL":
		return true
	case "":
		return where == "neigh_invalidate" || where == "__neigh_event_send"
	}
	return false
}

// TooBig tells whether a packet was dropped because of its size, or its other fragments did
// not come. large says that it carries more than passes every path: where the kernel gives
// no reason, what some places free is too large for the next device, or that is down.
func TooBig(reason, where string, large bool) bool {
	return slices.Contains(tooBig, reason) || reason == "" && large && slices.Contains(tooBigPlaces, where)
}

// tooBig are reasons that tell so.
var tooBig = []string{"PKT_TOO_BIG", "SKB_GSO_SEG", "FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "OVS_DROP_FRAG_L2_TOO_LONG"}

// tooBigPlaces free what is larger than the MTU of the device behind, and give no reason
// (net/core/dev.c, net/bridge, net/ipv4/ip_output.c, net/ipv6/ip6_output.c).
var tooBigPlaces = []string{
	"____dev_forward_skb", "__dev_forward_skb", "__dev_forward_skb2", "veth_xmit", "br_dev_queue_push_xmit",
	"br_nf_dev_queue_xmit", "br_nf_ip_fragment", "ip_fragment", "ip_do_fragment", "ip6_fragment", "ip6_output", "ip6_finish_output",
}

// PeerDown tells whether a small packet was freed where what is too large for the other end of
// a veth is, too: that end is down.
func PeerDown(reason, where string) bool {
	return reason == "" && strings.Contains(where, "dev_forward_skb")
}

// What to do, where several reasons have it in common: the place to look at first.
const (
	adviceUnknown   = "Look up the reason and the function in the kernel's source; `ip -s -s link`, `nstat -az`, `ethtool -S DEVICE` count drops."
	adviceChecksum  = "Turn checksum offloading off at the device that sent it (`ethtool -K DEVICE tx off`); else see who rewrites packets on the way."
	adviceRPFilter  = "Compare `ip route get SOURCE` with the device that it came in by: mend that route, or set rp_filter of the device to 2 (loose)."
	adviceForward   = "If it is to be a router: `sysctl net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`; else see why it was sent there."
	adviceLoop      = "Look for routes that lead to each other: `traceroute -U -p 53 ADDRESS` from the sender, `ip route get ADDRESS` on each router."
	adviceRoute     = "See which route there is for the address: `ip route get ADDRESS`, `ip rule`."
	adviceNeighbour = "See who has the address, and whether that host is up: `ip route get ADDRESS`, `ip neigh`."
	adviceQueue     = "`ip link show DEVICE` there: NO-CARRIER says that its other end is down. Else its queue is too short: `tc -s qdisc`."
	adviceLinkDown  = "Bring it up (`ip link set DEVICE up`), or see why it went down (`dmesg`); of a pod that is being removed it is no fault."
	adviceTC        = "See there `tc -s filter show dev DEVICE ingress` (and `egress`), `bpftool net`; with Cilium, `cilium-dbg monitor -t drop`."
	adviceCPU       = "This CPU has too much to receive (/proc/net/softnet_stat, second column): use RPS, or raise net.core.netdev_max_backlog."
	adviceMemory    = "See `free -m`, `dmesg`, /proc/net/sockstat; raise net.ipv4.udp_mem or net.ipv4.tcp_mem if they are used up."
	adviceSocket    = "See what keeps the process from reading (`ss -lunmp`, its CPU limit), and give its socket more room (net.core.rmem_max)."
	adviceClosed    = "The process closed its socket or died before it read this: see its log, and why it did not wait."
	adviceMalformed = "Capture it where it was sent (`tcpdump -vv -ni DEVICE port 53`), and see who makes or rewrites it."
	adviceMTU       = "Compare the MTU of the devices on the way (`ip link`), and let ICMP pass; an EDNS buffer size of 1232 avoids it."
	adviceFragments = "Other fragments did not come (`nstat -az 'IpReasm*'`), as behind many firewalls; an EDNS buffer size of 1232 avoids them."
	adviceIPsec     = "See what has to be encrypted (`ip xfrm policy`), with what keys (`ip xfrm state`), and /proc/net/xfrm_stat."
	adviceAddress   = "See who sends with that address, and by which way: `ip address`, `ip route get ADDRESS`, translations (NAT) on the way."
	adviceTCP       = "TCP mends it, if it is rare (`nstat -az 'Tcp*'`); else capture the connection: `tcpdump -ni any tcp port 53`."
	adviceTCPEnd    = "One end had closed the connection: see which was first (idle timeouts of server, client and NAT)."
	adviceTCPKeys   = "See who set a key (TCP MD5, TCP-AO) for that address, which DNS does not use: `ss -ti`."
	adviceVXLAN     = "Compare VNI, port and addresses of the overlay's device on both nodes: `ip -d link show type vxlan`, `bridge fdb show`."
	adviceBridge    = "See the state of the port there: `bridge -d link show`; spanning tree may still hold it back."
	adviceTap       = "See the filter of that TAP device: it is the virtual machine's, or the VPN's."
	adviceSecurity  = "See the log of the security module (SELinux, AppArmor, an LSM program): `ausearch -m avc -ts recent`, `dmesg`."
	adviceIPv6      = "Turn IPv6 on there (`sysctl net.ipv6.conf.DEVICE.disable_ipv6`), or let nobody ask over it."
	adviceMAC       = "The sender has an old or wrong link address for this host: `ip neigh` at the sender, `ip link` here."
	adviceOVS       = "See which flow decides (`ovs-appctl dpctl/dump-flows -m`); with OVN-Kubernetes or Antrea it can be the network policy."
	adviceRing      = "Whoever reads from this device (a virtual machine, a VPN) is too slow: `ip -s link show DEVICE`; give it CPU time."
	adviceHook      = "Find the rule there: `nft list ruleset`, `iptables-save -c` (counters that rise)."
)

// places are functions (in net/) that tell where the kernel gives no reason: kernels
// before Linux 5.17, and places in younger ones. A function that frees packets for several
// reasons says them all.
var places = map[string]Reason{
	"neigh_invalidate":        reasons["NEIGH_FAILED"],
	"__neigh_event_send":      reasons["NEIGH_FAILED"],
	"ip_error":                {"no route, or one that refuses", adviceRoute},
	"ip6_pkt_drop":            {"no route, or one that refuses", adviceRoute},
	"ip_rcv_finish_core":      {"no route, or reverse path filter", adviceRPFilter},
	"dst_discard_out":         {"route that refuses", adviceRoute},
	"dst_discard":             {"route that refuses", adviceRoute},
	"__udp4_lib_rcv":          {noUDPSocket, adviceChecksum},
	"__udp6_lib_rcv":          {noUDPSocket, adviceChecksum},
	"udp_rcv":                 {noUDPSocket, adviceChecksum},
	"udpv6_rcv":               {noUDPSocket, adviceChecksum},
	"tcp_v4_rcv":              {noTCPSocket, adviceTCPEnd},
	"tcp_v6_rcv":              {noTCPSocket, adviceTCPEnd},
	"udp_queue_rcv_one_skb":   {fullSocket, adviceSocket},
	"udpv6_queue_rcv_one_skb": {fullSocket, adviceSocket},
	"udp_destruct_common":     reasons["SOCKET_CLOSE"],
	"tcf_classify":            {"traffic control program", adviceTC},
	"sch_handle_ingress":      reasons["TC_INGRESS"],
	"sch_handle_egress":       reasons["TC_EGRESS"],
	"do_xdp_generic":          reasons["XDP"],
	"veth_xdp_rcv_skb":        reasons["XDP"],
	"skb_do_redirect":         {"redirected by an eBPF program to no device that takes it", adviceTC},
	"enqueue_to_backlog":      reasons["CPU_BACKLOG"],
	"ip_forward":              {"not forwarded", adviceForward},
	"ip6_forward":             {"not forwarded", adviceForward},
	"br_handle_frame_finish":  {"bridge", adviceBridge},
	"__br_forward":            {"bridge", adviceBridge},
	"ip_fragment":             reasons["PKT_TOO_BIG"],
	"ip_do_fragment":          {"a fragment before it was dropped, or it may not be cut into fragments", adviceMTU},
	"ip6_fragment":            reasons["PKT_TOO_BIG"],
	"__dev_forward_skb":       {"larger than the next device's MTU, or that device is down", adviceMTU},
	"__dev_forward_skb2":      {"larger than the next device's MTU, or that device is down", adviceMTU},
	"____dev_forward_skb":     {"larger than the next device's MTU, or that device is down", adviceMTU},
	"br_dev_queue_push_xmit":  {"larger than the MTU of the bridge's port", adviceMTU},
	"br_nf_dev_queue_xmit":    {"larger than the MTU of the bridge's port", adviceMTU},
	"br_nf_ip_fragment":       {"larger than the MTU of the bridge's port", adviceMTU},
	"ip_finish_output":        reasons["BPF_CGROUP_EGRESS"],
	"ip_rcv_core":             {"malformed IP header", adviceMalformed},
	"ip6_rcv_core":            {"malformed IP header", adviceMalformed},
	"__dev_queue_xmit":        {"queue of the device full, or the device is down", adviceQueue},
}

// What a place without a reason leaves open.
const (
	noUDPSocket = "no socket, or a wrong checksum"
	noTCPSocket = "no socket, a wrong checksum, a filter or IPsec"
	fullSocket  = "receive buffer full, a socket filter, or a wrong checksum"
)
