package capture

import "slices"

// Where what drops packets by the decision of an eBPF program is attached (Packet.BPF).
const (
	// Traffic control, where filters of other kinds drop with the same reason.
	BPFTCIngress = "tc ingress"
	BPFTCEgress  = "tc egress"
	BPFRedirect  = "redirect" // sent to a device that does not take it
	BPFXDP       = "XDP"
	// A program of the cgroup at cgroup_skb/egress.
	BPFCgroupEgress = "cgroup egress"
	// A program of the cgroup at cgroup_skb/ingress or a filter of the socket: the kernel
	// has one reason for both.
	BPFSocketFilter = "cgroup ingress or socket filter"
)

// bpfReasons are the reasons (include/net/dropreason-core.h) that an eBPF program causes.
// Few places give XDP.
var bpfReasons = map[string]string{
	"TC_INGRESS": BPFTCIngress, "TC_EGRESS": BPFTCEgress, "XDP": BPFXDP,
	"BPF_CGROUP_EGRESS": BPFCgroupEgress, "SOCKET_FILTER": BPFSocketFilter,
}

// bpfPlaces drop what a program decides on, without a reason: XDP (net/core/dev.c,
// drivers/net/veth.c) where the packet has a buffer already, and redirection
// (net/core/filter.c).
var bpfPlaces = map[string]string{
	"do_xdp_generic": BPFXDP, "netif_receive_generic_xdp": BPFXDP, "veth_xdp_rcv_skb": BPFXDP,
	"skb_do_redirect": BPFRedirect, "__bpf_redirect": BPFRedirect, "__bpf_redirect_no_mac": BPFRedirect,
	"__bpf_redirect_neigh": BPFRedirect, "bpf_out_neigh_v4": BPFRedirect, "bpf_out_neigh_v6": BPFRedirect,
	"bpf_clone_redirect": BPFRedirect, "xdp_do_generic_redirect": BPFXDP,
}

// forwardPlaces drop what a device does not take, whatever its source (net/core/dev.c).
var forwardPlaces = []string{"____dev_forward_skb", "__dev_forward_skb2", "__dev_forward_skb", "dev_forward_skb"}

// dropBPF returns where the program that dropped a packet is attached; "" if none did, or
// reason and place do not show it.
func dropBPF(s dropSite) string {
	if s.reason != "" {
		return bpfReasons[s.reason]
	}
	if !slices.Contains(forwardPlaces, s.where) {
		return bpfPlaces[s.where]
	}
	// Behind where it was freed stand those who gave it.
	from := slices.Index(s.callers, s.where)
	for _, c := range s.callers[from+1:] {
		if !slices.Contains(forwardPlaces, c) {
			return bpfPlaces[c]
		}
	}
	return ""
}
