/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * The answer for nearly every packet: whether it is worth parsing. It looks at
 * protocol, fragment and ports and nothing else.
 *
 * Each field is read by itself and no wider than the network stack has written
 * it a moment ago: a load that spans two stores waits for them to reach the
 * cache, which costs more than all the rest. Before Linux 6.2, where each read is
 * a call, one takes them all.
 */
#ifndef DNSTRACE_GLANCE_H
#define DNSTRACE_GLANCE_H

/* Up to the ports behind an IPv4 header without options, or an IPv6 header. */
#define GLANCE_IPV4	24
#define GLANCE_IPV6	44

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

static __always_inline bool may_be_dns(struct sk_buff *skb, const __u8 *l3)
{
	__be16 ethertype = skb->protocol;
	__u8 copy[GLANCE_IPV6], ports[4];
	__u8 protocol;
	__u16 sport, dport;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		__u8 first;

		if (!bpf_rdonly_cast)
			load(copy, GLANCE_IPV4, l3);
		if (look16(copy, l3, 6) & 0x3fff)	/* a fragment, of whatever */
			return true;
		protocol = look8(copy, l3, 9);
		first = look8(copy, l3, 0);
		sport = look16(copy, l3, 20);
		dport = look16(copy, l3, 22);
		if (first != 0x45) {
			load(ports, sizeof(ports), l3 + (first & 0x0f) * 4);
			sport = be16(ports);
			dport = be16(ports + 2);
		}
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (!bpf_rdonly_cast)
			load(copy, GLANCE_IPV6, l3);
		protocol = look8(copy, l3, 6);
		sport = look16(copy, l3, 40);
		dport = look16(copy, l3, 42);
	} else {
		return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
	}
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
		return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 || protocol == IPPROTO_HOPOPTS ||
		       protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS ||
		       protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE;
	return is_dns_port(sport, dport) || (protocol == IPPROTO_UDP && is_tunnel_port(dport)) ||
	       was_dns_port(skb->_nfct);
}

#endif
