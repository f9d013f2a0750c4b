/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * From a packet's first header to its DNS payload: 802.1Q and 802.1ad tags, IPv4
 * with options, IPv6 with extension headers, fragments, UDP and TCP, one tunnel
 * (VXLAN, Geneve, IP in IP, GRE), and the packet that an ICMP error quotes.
 *
 * Only what is not in pages is looked at: drivers and tunnels keep all headers
 * there. What is malformed or cut short is no DNS packet.
 */
#ifndef DNSTRACE_HEADERS_H
#define DNSTRACE_HEADERS_H

/*
 * Two tags, an outer IP and UDP, an inner IP with six extension headers, and one
 * to spare; an ICMP error without a tunnel around it fits as well.
 */
#define MAX_HEADERS	12

/* Smallest DNS message: the header (RFC 1035, section 4.1.1). */
#define DNS_HEADER	12
#define DNS_RESPONSE	0x80	/* QR, in its third byte */

/* RFC 7348; what Linux took before a port was assigned; RFC 8926. */
#define PORT_VXLAN	4789
#define PORT_VXLAN_OLD	8472
#define PORT_GENEVE	6081

/* RFC 2784, RFC 2890: what a GRE header has beside protocol and flags. */
#define GRE_CHECKSUM	0x8000
#define GRE_KEY		0x2000
#define GRE_SEQUENCE	0x1000
#define GRE_UNKNOWN	0x4007		/* routing, another version */

enum verdict {
	NOT_DNS,
	NEXT_HEADER,
	IS_DNS,
};

static __always_inline bool is_tunnel_port(__u16 dport)
{
	return dport == PORT_VXLAN || dport == PORT_VXLAN_OLD || dport == PORT_GENEVE;
}

static __always_inline void map_ipv4(__u8 *dst, const __u8 *src)
{
	*(__u64 *)dst = 0;
	*(__u32 *)(dst + 8) = bpf_htonl(0xffff);
	*(__u32 *)(dst + 12) = *(const __u32 *)src;
}

/*
 * What a tag or a tunnel says that follows it. 0 is no protocol: next_header() takes it
 * for what stands behind an IP header, of which this packet may have had none.
 */
static __always_inline int follows(struct scratch *s, __u16 ethertype)
{
	s->ethertype = bpf_htons(ethertype);
	return ethertype ? NEXT_HEADER : NOT_DNS;
}

/* Whether n more bytes stand at the cursor. */
static __always_inline bool has(struct scratch *s, __u32 n)
{
	return s->at + n <= s->end;
}

static __always_inline int vlan_header(struct scratch *s)
{
	__u8 h[4];

	if (!has(s, sizeof(h)))
		return NOT_DNS;
	load(h, sizeof(h), (void *)s->at);
	if (!s->e.vlan)
		s->e.vlan = be16(h) & 0xfff;
	else
		s->e.inner_vlan = be16(h) & 0xfff;
	s->at += sizeof(h);
	return follows(s, be16(h + 2));
}

/* A fragment that is not the first: is it one of a DNS packet? */
static __always_inline int later_fragment(struct scratch *s)
{
	struct fragment_key key = { .id = s->fragment.id, .protocol = s->fragment_protocol };
	struct fragment_ports *first;

	/* An ICMP error that quotes one says nothing of ports. */
	if (s->e.parts & PART_ICMP)
		return NOT_DNS;
	__builtin_memcpy(key.saddr, s->e.saddr, 16);
	__builtin_memcpy(key.daddr, s->e.daddr, 16);
	first = bpf_map_lookup_elem(&fragmented, &key);
	if (!first)
		return NOT_DNS;
	s->e.sport = first->sport;
	s->e.dport = first->dport;
	s->e.servers = first->servers;
	s->e.protocol = first->protocol;
	return IS_DNS;
}

/* Lets later fragments be known by this one, which has the ports. */
static __always_inline void first_fragment(struct scratch *s)
{
	struct fragment_key key = { .id = s->fragment.id, .protocol = s->fragment_protocol };
	struct fragment_ports first = { .sport = s->e.sport, .dport = s->e.dport, .protocol = s->e.protocol, .servers = s->e.servers };

	__builtin_memcpy(key.saddr, s->e.saddr, 16);
	__builtin_memcpy(key.daddr, s->e.daddr, 16);
	/* The table makes room by itself. */
	bpf_map_update_elem(&fragmented, &key, &first, BPF_ANY);
}

/* offset and more as both versions have them, in units of bytes. */
static __always_inline int fragment_header(struct scratch *s, __u32 id, __u16 offset, bool more)
{
	s->e.parts |= PART_FRAGMENT;
	s->fragment.id = id;
	s->fragment.offset = offset;
	s->fragment.length = s->left;
	s->fragment.more = more;
	s->fragment_protocol = s->protocol;
	return offset ? later_fragment(s) : NEXT_HEADER;
}

static __always_inline int ipv4_header(struct scratch *s)
{
	__u8 *h = s->h;
	__u32 len, total;
	__u16 fragment;

	if (!has(s, 20))
		return NOT_DNS;
	load(h, 20, (void *)s->at);
	len = (h[0] & 0x0f) * 4;
	total = be16(h + 2);
	if (h[0] >> 4 != 4 || len < 20 || total < len)
		return NOT_DNS;
	s->e.ip_version = 4;
	map_ipv4(s->e.saddr, h + 12);
	map_ipv4(s->e.daddr, h + 16);
	s->protocol = h[9];
	s->ethertype = 0;
	s->at += len;
	s->left = total - len;
	fragment = be16(h + 6);
	if (fragment & 0x3fff)
		return fragment_header(s, be16(h + 4), (fragment & 0x1fff) * 8, fragment & 0x2000);
	return NEXT_HEADER;
}

static __always_inline int ipv6_header(struct scratch *s)
{
	__u8 *h = s->h;

	if (!has(s, 40))
		return NOT_DNS;
	load(h, 40, (void *)s->at);
	if (h[0] >> 4 != 6)
		return NOT_DNS;
	s->e.ip_version = 6;
	__builtin_memcpy(s->e.saddr, h + 8, 16);
	__builtin_memcpy(s->e.daddr, h + 24, 16);
	s->protocol = h[6];
	s->ethertype = 0;
	s->at += 40;
	s->left = be16(h + 4);
	return NEXT_HEADER;
}

/* RFC 8200, section 4. */
static __always_inline int extension_header(struct scratch *s)
{
	__u8 h[8];
	__u8 protocol = s->protocol;
	__u32 len;

	if (s->e.ip_version != 6 || !has(s, sizeof(h)))
		return NOT_DNS;
	load(h, sizeof(h), (void *)s->at);
	len = protocol == IPPROTO_FRAGMENT ? 8 : (h[1] + 1) * 8;
	if (s->left < len)
		return NOT_DNS;
	s->at += len;
	s->left -= len;
	s->protocol = h[0];
	/* Alone in its datagram is no fragment (RFC 6946). */
	if (protocol == IPPROTO_FRAGMENT && be16(h + 2) & 0xfff9)
		return fragment_header(s, be32(h + 4), be16(h + 2) & 0xfff8, h[3] & 1);
	return NEXT_HEADER;
}

/* One tunnel is enough, and an ICMP error quotes too little of it. */
static __always_inline bool may_be_tunnel(const struct scratch *s)
{
	return !(s->e.parts & (PART_OUTER | PART_ICMP | PART_FRAGMENT));
}

/* What was read so far is the outer packet. */
static __always_inline void outer_packet(struct scratch *s, enum tunnel kind, __u32 vni)
{
	bool ports = kind == TUNNEL_VXLAN || kind == TUNNEL_GENEVE;

	s->e.parts |= PART_OUTER;
	__builtin_memcpy(s->outer.saddr, s->e.saddr, 16);
	__builtin_memcpy(s->outer.daddr, s->e.daddr, 16);
	s->outer.sport = ports ? s->e.sport : 0;
	s->outer.dport = ports ? s->e.dport : 0;
	s->outer.vni = vni;
	s->outer.kind = kind;
}

/* What a tunnel says that follows it: an IPv4, IPv6 or Ethernet packet. */
static __always_inline int inner_packet(struct scratch *s, __u16 ethertype)
{
	__u8 h[16];

	if (ethertype == ETH_P_TEB) {
		if (!has(s, sizeof(h)))
			return NOT_DNS;
		load(h, sizeof(h), (void *)s->at);
		ethertype = be16(h + 12);
		s->at += ETH_HLEN;
	}
	return follows(s, ethertype);
}

static __always_inline int udp_tunnel_header(struct scratch *s)
{
	__u8 h[8];
	__u32 len = sizeof(h);
	__u16 inner = ETH_P_TEB;
	bool geneve = s->e.dport == PORT_GENEVE;

	if (!may_be_tunnel(s) || !has(s, sizeof(h)))
		return NOT_DNS;
	load(h, sizeof(h), (void *)s->at);
	if (geneve) {
		len += (h[0] & 0x3f) * 4;
		inner = be16(h + 2);
	} else if (!(h[0] & 0x08)) {
		return NOT_DNS;
	}
	s->at += len;
	outer_packet(s, geneve ? TUNNEL_GENEVE : TUNNEL_VXLAN, be32(h + 4) >> 8);
	return inner_packet(s, inner);
}

static __always_inline int ip_tunnel_header(struct scratch *s, __u16 ethertype)
{
	if (!may_be_tunnel(s))
		return NOT_DNS;
	outer_packet(s, TUNNEL_IPIP, 0);
	return follows(s, ethertype);
}

/* Version 0, without the routing that RFC 1701 had. */
static __always_inline int gre_header(struct scratch *s)
{
	__u8 h[12];
	__u32 len = 4, key = 0;
	__u16 flags;

	if (!may_be_tunnel(s) || !has(s, 4))
		return NOT_DNS;
	load(h, 4, (void *)s->at);
	flags = be16(h);
	if (flags & GRE_UNKNOWN)
		return NOT_DNS;
	if (flags & GRE_CHECKSUM)
		len += 4;
	if (flags & GRE_KEY) {
		if (!has(s, len + 4))
			return NOT_DNS;
		load(h + 8, 4, (void *)s->at + len);
		key = be32(h + 8);
		len += 4;
	}
	if (flags & GRE_SEQUENCE)
		len += 4;
	s->at += len;
	outer_packet(s, TUNNEL_GRE, key);
	return inner_packet(s, be16(h + 2));
}

/* Errors only: RFC 792, RFC 4443 section 3. */
static __always_inline int icmp_header(struct scratch *s)
{
	__u8 h[8];
	bool v4 = s->protocol == IPPROTO_ICMP;

	if (s->e.parts & (PART_ICMP | PART_FRAGMENT) || !has(s, sizeof(h)))
		return NOT_DNS;
	if (v4 != (s->e.ip_version == 4))
		return NOT_DNS;
	load(h, sizeof(h), (void *)s->at);
	if (v4 ? h[0] != 3 && h[0] != 11 && h[0] != 12 : h[0] < 1 || h[0] > 4)
		return NOT_DNS;
	s->e.parts |= PART_ICMP;
	__builtin_memcpy(s->icmp.saddr, s->e.saddr, 16);
	__builtin_memcpy(s->icmp.daddr, s->e.daddr, 16);
	s->icmp.type = h[0];
	s->icmp.code = h[1];
	s->icmp.mtu = 0;
	if (v4 && h[0] == 3 && h[1] == 4)	/* fragmentation needed (RFC 1191) */
		s->icmp.mtu = be16(h + 6);
	else if (!v4 && h[0] == 2)		/* packet too big */
		s->icmp.mtu = be32(h + 4);
	s->ethertype = v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	s->at += sizeof(h);
	return NEXT_HEADER;
}

#endif
