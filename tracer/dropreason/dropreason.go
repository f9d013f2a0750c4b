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
	Words  string // what it means, as a phrase; empty: it is not known
	Advice string // what to do, in sentences
}

// Of returns what is known of a reason that was given at a place: the name of the kernel's
// function that freed the packet. Either may be empty. Of what is not known it has no
// words.
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

// What to do, where several reasons have it in common.
const (
	adviceUnknown = "The kernel's source says what it means (the function, and include/net/dropreason-core.h); `ip -s -s link`, `nstat -az` and " +
		"`ethtool -S DEVICE` there count drops."
	adviceChecksum = "Something changed the packet and not its checksum, or a device was to compute it and did not: turn that off at the device that sent it " +
		"(`ethtool -K DEVICE tx off`; for VXLAN, of the tunnel's device), and look for what rewrites packets on the way."
	adviceRPFilter = "The route back to the packet's source leads through another device: compare `ip route get SOURCE` with the device that it came in by, and mend " +
		"the route, or loosen the check (`sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.DEVICE.rp_filter`; 2 is loose, the larger of the two counts)."
	adviceForward = "The address is not of this host, which is no router for it: turn forwarding on if it is to be one (`sysctl net.ipv4.ip_forward`, " +
		"`net.ipv6.conf.all.forwarding`), else see why it was sent there (`ip route get ADDRESS` at the sender, `ip address` here)."
	adviceLoop = "It went round between routers, or its sender gave it too few hops: see whether two of them have routes for the address that lead to each other " +
		"(`ip route get ADDRESS` on each, `traceroute -U -p 53`)."
	adviceRoute     = "See which route there is for the address: `ip route get ADDRESS`, `ip rule` (for a reply, the route back to the client)."
	adviceNeighbour = "See whether the address is still anybody's, and who has it: `ip route get ADDRESS`, `ip neigh`."
	adviceQueue     = "`tc -s qdisc show dev DEVICE` there counts what the queue dropped and how long it is; `ip link show DEVICE` says whether the device has a carrier: " +
		"without one (NO-CARRIER, its other end is down or gone) everything is dropped. Else give it a longer queue, or less to send."
	adviceLinkDown = "Bring it up (`ip link set DEVICE up`), or see why it went down (`dmesg`, `ip -d link show DEVICE`); of a pod that is being removed it is no fault."
	adviceTC       = "`tc -s filter show dev DEVICE ingress` and `egress`, `bpftool net show` there list the programs and filters; with Cilium, `cilium-dbg monitor -t drop`."
	adviceCPU      = "This CPU got packets faster than it can handle: spread them (`ethtool -L`, RPS in /sys/class/net/DEVICE/queues), or raise net.core.netdev_max_backlog; " +
		"/proc/net/softnet_stat counts these drops in its second column."
	adviceMemory    = "The kernel had no memory for it: `free -m`, `dmesg` and /proc/net/sockstat; raise net.ipv4.udp_mem or net.ipv4.tcp_mem if they are used up."
	adviceSocket    = "The process does not read fast enough: see what keeps it (`ss -lunmp`, CPU limits), and give it a larger buffer (net.core.rmem_max)."
	adviceClosed    = "The process closed its socket, or died, before it had read this: see its log, and why it did not wait."
	adviceMalformed = "The packet is malformed as it came: capture it where it was sent (`tcpdump -vv -ni DEVICE port 53`) and see who makes or rewrites it."
	adviceMTU       = "Compare the MTU of the devices on the way (`ip link`, tunnels take 50 to 80 bytes), and let ICMP \"fragmentation needed\" pass; a smaller EDNS buffer size (1232) avoids it."
	adviceFragments = "The other fragments did not come, or firewalls let only the first pass: a smaller EDNS buffer size (1232) avoids fragments; `nstat -az 'IpReasm*'` counts them."
	adviceIPsec     = "`ip xfrm policy` there says what has to be encrypted, `ip xfrm state` with what keys; /proc/net/xfrm_stat counts why packets are refused."
	adviceAddress   = "See who sends with that address, and from which side: `ip address`, `ip route get ADDRESS` there, and translations (NAT) on the way."
	adviceTCP       = "TCP mends that itself by sending anew, if it is rare; `nstat -az 'Tcp*'` counts it. If it goes on, capture the connection (`tcpdump -ni any port 53`)."
	adviceTCPEnd    = "One end had closed the connection, or it is another than the one that the segment is for: see who ends it first (idle timeouts of server, client and of NAT)."
	adviceTCPKeys   = "The two ends do not agree on TCP MD5 or TCP-AO, which DNS does not use: see who set a key for that address (`ss -ti`)."
	adviceVXLAN     = "The nodes do not agree on the overlay: compare VNI, port and addresses of its device on both (`ip -d link show type vxlan`, `bridge fdb show`)."
	adviceBridge    = "The bridge does not let this port pass packets (yet): `bridge -d link show`, and spanning tree's state there."
	adviceTap       = "The filter of the TAP device refuses it: see the virtual machine's, or the VPN's, settings of that device."
	adviceSecurity  = "A security module refuses it (SELinux, AppArmor, Smack, an LSM program): see its audit log (`ausearch -m avc -ts recent`, `dmesg`)."
	adviceIPv6      = "IPv6 is off at that device: `sysctl net.ipv6.conf.DEVICE.disable_ipv6`; turn it on, or take the address out of what is asked."
	adviceMAC       = "The frame has another machine's link address: the sender's neighbour entry is out of date, or wrong (`ip neigh` at the sender, `ip link` here)."
	adviceOVS       = "`ovs-appctl dpctl/dump-flows -m` and `ovs-appctl ofproto/trace` say which flow decides on it; with OVN-Kubernetes or Antrea it can be the network policy."
	adviceRing      = "Whoever reads from this device (a virtual machine, a VPN's process) is too slow: `ip -s link show DEVICE` counts it; give it CPU time or a longer queue (`ip link set DEVICE txqueuelen`)."
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
	"ip_rcv_finish_core":      {"no route, or reverse path filter", adviceRoute + " " + adviceRPFilter},
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
