/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* The last header before DNS, and the way there. */
#ifndef DNSTRACE_TRANSPORT_H
#define DNSTRACE_TRANSPORT_H

#define TCP_FIN	0x01
#define TCP_SYN	0x02
#define TCP_RST	0x04
#define TCP_ACK	0x10

/* Whether one end is a DNS server: by its port, by a translation, or as was learned. */
static __always_inline bool is_dns(struct scratch *s, struct sk_buff *skb)
{
	s->e.servers = server_ends(s, skb->_nfct);
	return s->e.servers;
}

/*
 * Whether a datagram is too short to be a DNS message, and is not what a server sends its
 * client, which has to reject it.
 */
static __always_inline bool is_no_message(const struct scratch *s)
{
	return s->left < DNS_HEADER && (!(s->e.servers & SERVER_SRC) || s->e.parts & PART_ICMP);
}

static __always_inline int udp_header(struct scratch *s, struct sk_buff *skb)
{
	if (s->left < 8)
		return NOT_DNS;
	s->at += 8;
	s->left -= 8;
	if (!is_dns(s, skb))
		return is_tunnel_port(s->e.dport) ? udp_tunnel_header(s) : NOT_DNS;
	return is_no_message(s) ? NOT_DNS : IS_DNS;
}

/* Data, and what begins, ends or refuses a connection; not bare ACKs. */
static __always_inline bool is_reported(const struct scratch *s)
{
	return s->left || s->e.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST);
}

static __always_inline int tcp_header(struct scratch *s, struct sk_buff *skb)
{
	__u8 h[8];
	__u32 len;

	if (!is_dns(s, skb))
		return NOT_DNS;
	s->e.seq = be32(s->h + 4);
	/* Of TCP, RFC 792 promises no more than ports and sequence number. */
	if (s->e.parts & PART_ICMP) {
		s->left = 0;
		return IS_DNS;
	}
	if (!has(s, 20))
		return NOT_DNS;
	load(h, sizeof(h), (void *)s->at + 12);
	len = (h[0] >> 4) * 4;
	if (len < 20 || s->left < len)
		return NOT_DNS;
	s->e.tcp_flags = h[1];
	s->at += len;
	s->left -= len;
	return is_reported(s) ? IS_DNS : NOT_DNS;
}

static __always_inline int transport_header(struct scratch *s, struct sk_buff *skb)
{
	int verdict;

	if (!has(s, 8))
		return NOT_DNS;
	load(s->h, 8, (void *)s->at);
	s->e.sport = be16(s->h);
	s->e.dport = be16(s->h + 2);
	s->e.protocol = s->protocol;
	verdict = s->protocol == IPPROTO_UDP ? udp_header(s, skb) : tcp_header(s, skb);
	if (verdict == IS_DNS && s->e.parts & PART_FRAGMENT && !(s->e.parts & PART_ICMP))
		first_fragment(s);
	return verdict;
}

static __always_inline int next_header(struct scratch *s, struct sk_buff *skb)
{
	switch (s->ethertype) {
	case 0:
		break;
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return vlan_header(s);
	case bpf_htons(ETH_P_IP):
		return ipv4_header(s);
	case bpf_htons(ETH_P_IPV6):
		return ipv6_header(s);
	default:
		return NOT_DNS;
	}
	switch (s->protocol) {
	case IPPROTO_UDP:
	case IPPROTO_TCP:
		return transport_header(s, skb);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return icmp_header(s);
	case IPPROTO_IPIP:
		return ip_tunnel_header(s, ETH_P_IP);
	case IPPROTO_IPV6:
		return ip_tunnel_header(s, ETH_P_IPV6);
	case IPPROTO_GRE:
		return gre_header(s);
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
		return extension_header(s);
	}
	return NOT_DNS;
}

/* The tag that a device took out of the packet, or will put in. */
static __always_inline __u16 offloaded_tag(struct sk_buff *skb)
{
	if (bpf_core_field_exists(skb->vlan_present) && !BPF_CORE_READ_BITFIELD(skb, vlan_present))
		return 0;
	return skb->vlan_tci & 0xfff;
}

/*
 * Fills the head of the event, but for where and when, and leaves the cursor at
 * the payload. l3 is where the header stands that the packet's protocol names.
 */
static __always_inline bool parse(struct scratch *s, struct sk_buff *skb, const __u8 *l3)
{
	s->e.parts = 0;
	s->e.seq = 0;
	s->e.tcp_flags = 0;
	s->e.vlan = offloaded_tag(skb);
	s->e.inner_vlan = 0;
	s->ethertype = skb->protocol;
	s->at = (__u64)l3;
	s->start = (__u64)skb->data;
	/* Read back as a number: to Linux 7.2 a difference of pointers is a pointer. */
	s->end = *(volatile __u64 *)&s->start + (skb->len - skb->data_len);
	for (int i = 0; i < MAX_HEADERS; i++) {
		int verdict = next_header(s, skb);

		if (verdict != NEXT_HEADER)
			return verdict == IS_DNS;
	}
	return false;
}

#endif
