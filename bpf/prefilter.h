/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * The decision about nearly every packet: whether it is worth parsing. It looks at
 * protocol, fragment and ports and, where not every lookup is reported, at the first
 * bytes of a DNS message (sampling.h).
 *
 * Each field is read by itself and no wider than the network stack has written
 * it a moment ago: a load that spans two stores waits for them to reach the
 * cache, which costs more than all the rest. Before Linux 6.2, where each read is
 * a call, one takes them all.
 */
#ifndef DNSTRACE_PREFILTER_H
#define DNSTRACE_PREFILTER_H

/* Headers without options, and with the ports behind them. */
#define IPV4_HEADER	20
#define IPV6_HEADER	40
#define IPV4_PORTS	24
#define IPV6_PORTS	44
#define UDP_HEADER	8

static __always_inline __u8 look8(const __u8 *copy, const __u8 *header, __u32 off)
{
	const struct in6_addr *a;

	if (!bpf_rdonly_cast)
		return copy[off];
	a = bpf_rdonly_cast(header + off, bpf_core_type_id_kernel(struct in6_addr));
	return a->in6_u.u6_addr8[0];
}

static __always_inline __u16 look16(const __u8 *copy, const __u8 *header, __u32 off)
{
	const struct in6_addr *a;

	if (!bpf_rdonly_cast)
		return be16(copy + off);
	a = bpf_rdonly_cast(header + off, bpf_core_type_id_kernel(struct in6_addr));
	return bpf_ntohs(a->in6_u.u6_addr16[0]);
}

/*
 * Whether a DNS packet is one of a lookup that is not reported, where its headers tell
 * without parsing: is_chosen() decides about the others.
 */
static __always_inline bool is_left_out(struct sk_buff *skb, const __u8 *l4, __u8 protocol, __u16 sport, __u16 dport,
					__u8 servers, struct net_device *dev, struct sock *sk)
{
	__u8 dns[4] = {};
	__u16 id;

	if (reports_all() || (netns_listed && !is_observed(netns_of(dev, sk))))
		return false;
	if (protocol == IPPROTO_TCP)
		return !in_share(tcp_hash(sport, dport, servers, skb->_nfct));
	if (skb->data_len)	/* the message may be in pages */
		return false;
	if (!bpf_rdonly_cast) {
		load(dns, sizeof(dns), l4 + UDP_HEADER);
	} else {
		id = look16(0, l4, UDP_HEADER);
		dns[0] = id >> 8;
		dns[1] = id;
		dns[2] = look8(0, l4, UDP_HEADER + 2);
	}
	return !in_share(udp_hash(dns, sport, dport, skb->_nfct));
}

/* The ends that were learned, by the addresses of a header; learns that of a sender. */
static __always_inline __u8 ends_of_header(const __u8 *l3, __be16 ethertype, __u16 sport, __u16 dport, struct sock *sk)
{
	__u64 addrs[4];
	__u8 v4[8];

	if (ethertype == bpf_htons(ETH_P_IP)) {
		load(v4, sizeof(v4), l3 + 12);
		map_ipv4((__u8 *)addrs, v4);
		map_ipv4((__u8 *)(addrs + 2), v4 + 4);
	} else {
		load(addrs, 32, l3 + 8);
	}
	if (sk && sk->__sk_common.skc_num == sport && !is_loopback(addrs))
		learn_sender(addrs[0], addrs[1], sport, sk->__sk_common.skc_net.net->ns.inum);
	return learned_ends(addrs, sport, addrs + 2, dport);
}

/*
 * Whether a packet is to be parsed: one that may be DNS, and is not known to be one of a
 * lookup that is left out. l3 is where the header stands that the packet's protocol
 * names; dev and sk say in which namespace it is.
 */
static __always_inline bool prefilter(struct sk_buff *skb, const __u8 *l3, struct net_device *dev, struct sock *sk)
{
	__be16 ethertype = skb->protocol;
	__u8 copy[IPV6_PORTS], ports[4];
	const __u8 *l4;
	__u8 protocol, servers;
	__u16 sport, dport;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		__u8 first;

		if (!bpf_rdonly_cast)
			load(copy, IPV4_PORTS, l3);
		if (look16(copy, l3, 6) & 0x3fff)	/* a fragment, of whatever */
			return true;
		protocol = look8(copy, l3, 9);
		first = look8(copy, l3, 0);
		sport = look16(copy, l3, 20);
		dport = look16(copy, l3, 22);
		l4 = l3 + IPV4_HEADER;
		if (first != 0x45) {
			l4 = l3 + (first & 0x0f) * 4;
			load(ports, sizeof(ports), l4);
			sport = be16(ports);
			dport = be16(ports + 2);
		}
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (!bpf_rdonly_cast)
			load(copy, IPV6_PORTS, l3);
		protocol = look8(copy, l3, 6);
		sport = look16(copy, l3, 40);
		dport = look16(copy, l3, 42);
		l4 = l3 + IPV6_HEADER;
	} else {
		return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
	}
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
		return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 || protocol == IPPROTO_HOPOPTS ||
		       protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS ||
		       protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE;
	servers = observed_ends(sport, dport);
	if (!servers)
		servers = tracked_end(skb->_nfct);
	if (!servers && may_be_learned(sport, dport))
		servers = ends_of_header(l3, ethertype, sport, dport, sk);
	if (servers)
		return !is_left_out(skb, l4, protocol, sport, dport, servers, dev, sk);
	return protocol == IPPROTO_UDP && is_tunnel_port(dport);
}

#endif
