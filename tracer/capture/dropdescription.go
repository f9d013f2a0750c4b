package capture

import (
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
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

// hooks are the functions (net/ipv4, net/ipv6, net/bridge) that run a chain of
// netfilter, by the name that iptables and nftables give the hook. A function that runs
// two of them, since the compiler made the next a part of it, says both.
var hooks = map[string]string{
	"ip_rcv": "PREROUTING", "ipv6_rcv": "PREROUTING", "ip_list_rcv": "PREROUTING", "ipv6_list_rcv": "PREROUTING",
	"ip_sublist_rcv": "PREROUTING", "ip6_sublist_rcv": "PREROUTING",
	"br_nf_pre_routing": "PREROUTING", "br_nf_pre_routing_ipv6": "PREROUTING",
	"ip_local_deliver": "INPUT", "ip6_input": "INPUT",
	"ip_forward": "FORWARD", "ip6_forward": "FORWARD",
	"br_nf_forward_ip": "FORWARD", "br_nf_forward": "FORWARD",
	"__ip_local_out": "OUTPUT", "__ip6_local_out": "OUTPUT", "ip_local_out": "OUTPUT", "ip6_local_out": "OUTPUT", "ip6_xmit": "OUTPUT",
	"ip_output": "POSTROUTING", "ip6_output": "POSTROUTING", "ip_mc_output": "POSTROUTING", "br_nf_post_routing": "POSTROUTING",
	"br_handle_frame": "PREROUTING", "br_pass_frame_up": "INPUT", "br_forward_finish": "POSTROUTING",
	bridgeForward: "FORWARD or POSTROUTING",
}

// bridgeForward runs FORWARD for what came in by a port of the bridge, and OUTPUT for what
// the host itself sends through it (bridgeOut calls it then); POSTROUTING follows either.
const (
	bridgeForward = "__br_forward"
	bridgeOut     = "br_dev_xmit"
	bridgeOutputs = "OUTPUT or POSTROUTING"
)

// deviceHooks run the chains of a device, for which all that a packet meets is done within:
// only what was called directly by them was dropped there.
var deviceHooks = map[string]string{
	"nf_ingress": "INGRESS", "__netif_receive_skb_core": "INGRESS",
	"nf_hook_egress": "EGRESS", "__dev_queue_xmit": "EGRESS",
}

// bridgeHooks are those of hooks that run chains of the family bridge.
var bridgeHooks = []string{"br_handle_frame", "br_pass_frame_up", "br_forward_finish", bridgeForward}

// families are the functions (net/netfilter/nft_chain_filter.c) that run a chain of
// nftables, for all but the families ip and ip6, which the packet shows.
var families = map[string]string{
	"nft_do_chain_bridge": "bridge", "nft_do_chain_inet": "inet", "nft_do_chain_inet_ingress": "inet", "nft_do_chain_netdev": "netdev",
}

// bridgeTables says that the kernel does not tell whose rule it was.
const bridgeTables = "bridge (ebtables or nftables)"

// machinery stands between the free of a packet and the function that ran the hook.
var machinery = []string{
	"kfree_skb", "kfree_skb_reason", "sk_skb_reason_drop", "__kfree_skb_reason", "nf_hook_slow", "nf_hook_slow_list", nfQueue,
	"nft_do_chain", "nft_do_chain_ipv4", "nft_do_chain_ipv6", "nft_do_chain_bridge", "nft_do_chain_inet", "nft_do_chain_inet_ingress",
	"nft_do_chain_netdev", "ipt_do_table", "ip6t_do_table", "ebt_do_table",
}

// nfQueue frees what is to be queued to a process and finds none, or a full queue
// (net/netfilter/nf_queue.c).
const nfQueue = "nf_queue"

// netfilterPlaces free what a rule, or connection tracking, refuses.
var netfilterPlaces = []string{"nf_hook_slow", nfQueue, "nft_do_chain", "nf_hook_slow_list", "ipt_do_table", "ip6t_do_table"}

// dropDescription says why a packet was dropped, or "" where reason and place do not tell.
func dropDescription(s dropSite) string {
	if s.reason == "NETFILTER_DROP" || slices.Contains(netfilterPlaces, s.where) {
		return netfilterDescription(s)
	}
	return dropreason.Of(s.reason, s.where).Description
}

// netfilterDescription names the hook, and the family of the rule where that is not the
// packet's own. A clash of two first packets of one connection shows as an unconfirmed entry
// that the last hook drops, and no rule; iptables-legacy drops at the same place, so it is
// not proven.
func netfilterDescription(s dropSite) string {
	description := "netfilter"
	hook, family := netfilterHook(s.callers)
	if hook == "" && !s.device {
		hook = "OUTPUT"
	}
	if hook != "" {
		description += " hook " + hook
	}
	if family != "" {
		description += ", family " + family
	}
	if s.where == nfQueue {
		return description + ", NFQUEUE without a process that takes it"
	}
	last := (hook == "POSTROUTING" || hook == "INPUT") && family == ""
	if last && s.where == "nf_hook_slow" && s.tracked && s.status&ctConfirmed == 0 {
		description += ", by a rule or a conntrack insert clash"
	}
	return description
}

// netfilterHook returns the hook, and the family of the chain, by the functions that led to
// a drop, innermost first. Either is empty where they do not show it.
func netfilterHook(callers []string) (hook, family string) {
	direct := true // nothing but machinery so far
	for i, c := range callers {
		c, _, _ = strings.Cut(c, ".") // parts that the compiler made: br_nf_forward_ip.part.0
		if f := families[c]; f != "" && direct {
			family = f
		}
		if slices.Contains(machinery, c) {
			continue
		}
		if direct {
			if hook = deviceHooks[c]; hook != "" {
				return hook, family
			}
		}
		direct = false
		if hook = hooks[c]; hook == "" {
			continue
		}
		if slices.Contains(bridgeHooks, c) && family == "" {
			family = bridgeTables
		}
		if c == bridgeForward && slices.Contains(callers[i:], bridgeOut) {
			hook = bridgeOutputs
		}
		return hook, family
	}
	return "", family
}

// notDropped are reasons that are no drop: the packet was consumed (SKB_CONSUMED), or
// nobody misses it: what a bridge floods to ports of other hosts, what TCP already has, and
// copies for packet sockets (copyPlaces).
var notDropped = []string{"CONSUMED", "NOT_DROPPED_YET", "OTHERHOST", "TCP_OFOMERGE", "TCP_OLD_DATA", "PACKET_SOCK_ERROR"}

// copyPlaces free copies for which packet sockets (net/packet/af_packet.c) and raw ones
// (net/ipv4/raw.c, net/ipv6/raw.c) have no room: tcpdump is too slow, and nobody else
// misses them.
var copyPlaces = []string{
	"packet_rcv", "packet_rcv_spkt", "packet_rcv_fanout", "tpacket_rcv",
	"raw_rcv", "raw_rcv_skb", "raw_local_deliver", "rawv6_rcv", "rawv6_rcv_skb", "raw6_local_deliver",
}

// freedWithAnother frees the parts of a buffer that are packets of their own (net/core/skbuff.c):
// the fragments of a reassembled datagram, whose own fate is reported.
const freedWithAnother = "skb_release_data"

// otherHostPlaces free packets for another machine, for which Linux has a reason since
// 5.18 (net/ipv4/ip_input.c, net/ipv6/ip6_input.c). What a bridge forwards is marked as
// another machine's too, so the place decides.
var otherHostPlaces = []string{"ip_rcv", "ip_rcv_core", "ip_list_rcv", "ipv6_rcv", "ip6_rcv_core", "ipv6_list_rcv"}

// isDrop tells whether a freed packet is a loss to its receiver.
func isDrop(p *Packet) bool {
	return !slices.Contains(notDropped, p.Reason) && !slices.Contains(copyPlaces, p.Where) && p.Where != freedWithAnother && !notForHost(p)
}

// notForHost tells whether a packet was dropped because it is for another machine.
func notForHost(p *Packet) bool {
	return p.Reason == "OTHERHOST" || p.otherHost && p.Reason == "" && slices.Contains(otherHostPlaces, p.Where)
}

// isUnresolved tells whether a packet was dropped that waited for a link address.
func isUnresolved(p *Packet) bool {
	return dropreason.Unresolved(p.Reason, p.Where)
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
	p.NotForHost = notForHost(p)
	site := dropSite{
		reason: p.Reason, where: p.Where, callers: names[1:],
		device: p.IfIndex != 0, tracked: drop.CtKnown != 0, status: drop.CtStatus,
	}
	p.Description, p.BPF = dropDescription(site), dropBPF(site)
}
