/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Makes an ICMP error "port unreachable" of a packet, from the address that it was sent
 * to (RFC 792, RFC 4443 section 3.1).
 */
#ifndef DATAPATH_REFUSE_H
#define DATAPATH_REFUSE_H

/* What is quoted: the IP header and 40 bytes, which a SYN has and a query for a name of
 * some length.
 */
#define IP4_HLEN	20
#define IP6_HLEN	40
#define ICMP_HLEN	8
#define QUOTED4		(IP4_HLEN + 40)
#define QUOTED6		(IP6_HLEN + 40)

static __always_inline __sum16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int swap_macs(struct __sk_buff *skb, const __u8 *macs)
{
	return bpf_skb_store_bytes(skb, 0, macs + 6, 6, 0) ?:
	       bpf_skb_store_bytes(skb, 6, macs, 6, 0);
}

static __always_inline int refuse_v4(struct __sk_buff *skb)
{
	__u8 macs[12], quoted[QUOTED4];
	__u8 h[IP4_HLEN + ICMP_HLEN] = {
		0x45, 0, 0, sizeof(h) + QUOTED4, 0, 0, 0, 0, 64, IPPROTO_ICMP,
		[IP4_HLEN] = 3, 3,
	};

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, quoted, sizeof(quoted)))
		return -1;
	__builtin_memcpy(h + 12, quoted + 16, 4);
	__builtin_memcpy(h + 16, quoted + 12, 4);
	*(__sum16 *)(h + 10) = fold(bpf_csum_diff(0, 0, (void *)h, IP4_HLEN, 0));
	*(__sum16 *)(h + IP4_HLEN + 2) = fold(bpf_csum_diff(0, 0, (void *)quoted, sizeof(quoted), 0x0303));
	if (bpf_skb_change_tail(skb, ETH_HLEN + QUOTED4, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(h), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return swap_macs(skb, macs) ?: bpf_skb_store_bytes(skb, ETH_HLEN, h, sizeof(h), 0);
}

static __always_inline int refuse_v6(struct __sk_buff *skb)
{
	__u8 macs[12], quoted[QUOTED6];
	__u8 h[IP6_HLEN + ICMP_HLEN] = {
		0x60, 0, 0, 0, 0, ICMP_HLEN + QUOTED6, IPPROTO_ICMPV6, 64,
		[IP6_HLEN] = 1, 4,
	};
	/* The pseudo-header beside the addresses (RFC 8200, section 8.1). */
	__u8 rest[8] = { 0, 0, 0, ICMP_HLEN + QUOTED6, 0, 0, 0, IPPROTO_ICMPV6 };
	__s64 sum;

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, quoted, sizeof(quoted)))
		return -1;
	__builtin_memcpy(h + 8, quoted + 24, 16);
	__builtin_memcpy(h + 24, quoted + 8, 16);
	sum = bpf_csum_diff(0, 0, (void *)rest, sizeof(rest), 0);
	sum = bpf_csum_diff(0, 0, (void *)(h + 8), 32 + ICMP_HLEN, sum);
	sum = bpf_csum_diff(0, 0, (void *)quoted, sizeof(quoted), sum);
	*(__sum16 *)(h + IP6_HLEN + 2) = fold(sum);
	if (bpf_skb_change_tail(skb, ETH_HLEN + QUOTED6, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(h), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return swap_macs(skb, macs) ?: bpf_skb_store_bytes(skb, ETH_HLEN, h, sizeof(h), 0);
}

static __always_inline int refuse(struct __sk_buff *skb, bool v6)
{
	return v6 ? refuse_v6(skb) : refuse_v4(skb);
}

#endif
