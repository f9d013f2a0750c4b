/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Which end of a packet is a DNS server: the one with a port that is observed or, behind
 * a translation of the port, the one whose address and port were learned. A Service may
 * listen on port 53 and its pods on another; packets then have the Service's port in
 * some places, the pod's in others, and with socket load balancing the pod's everywhere.
 *
 * Programs learn from connection tracking: of an entry that was made for an observed port
 * they note where it leads. User space adds what it knows from EndpointSlices, and from
 * servers that send their records (tracer/capture/servers.go). A packet that is not DNS
 * costs two looks at a table of ports that were learned; more only if one is in there.
 */
#ifndef DNSTRACE_SERVERS_H
#define DNSTRACE_SERVERS_H

/* event.servers */
enum server_end {
	SERVER_SRC = 1,
	SERVER_DST = 2,
};

struct server_key {
	__u64 addr[2];		/* as in a packet; IPv4 as ::ffff:a.b.c.d */
	__u32 port;		/* host order; 0: none */
	__u32 pad;
};

/* What is learned is forgotten when this long nothing has proven it: addresses of pods are used again. */
#define SERVER_KEEP	(600ULL * 1000 * 1000 * 1000)
#define SERVER_RENEW	(1000ULL * 1000 * 1000)

/* What the programs learned, and when, in ns of CLOCK_MONOTONIC. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct server_key);
	__type(value, __u64);
} learned SEC(".maps");

#define PORT_CLASSES	4096
#define KNOWN_SERVERS	2048
#define KNOWN_PROBES	8
#define SERVER_SOCKETS	64

/* A server that binds a port and no address: any address that it sends from. */
struct server_socket {
	__u32 netns;		/* 0: none, here and behind it */
	__u16 port;
	__u16 pad;
};

/*
 * What user space knows, which is the only one to write it, except for classes, which
 * the programs write as well: each is a byte, so that nobody has to read it before. In a
 * section of its own, which user space maps into its memory: it needs no privilege.
 */
struct known_servers {
	/* By the low bits of a port: whether a server with such a port was learned. */
	__u8 classes[PORT_CLASSES];
	/* A hash table: a server is in one of KNOWN_PROBES places. */
	struct server_key servers[KNOWN_SERVERS];
	struct server_socket sockets[SERVER_SOCKETS];
};

volatile struct known_servers known SEC(".data.servers");

static __always_inline bool may_be_learned(__u16 sport, __u16 dport)
{
	__u64 src = sport, dst = dport;

	/* Else the bits are taken before the bytes are swapped, of which Linux 6.12 knows no bound. */
	barrier_var(src);
	barrier_var(dst);
	return known.classes[src & (PORT_CLASSES - 1)] | known.classes[dst & (PORT_CLASSES - 1)];
}

/* Whether a server was learned. */
static __always_inline bool is_learned(__u64 addr0, __u64 addr1, __u32 port)
{
	struct server_key key = { .addr = { addr0, addr1 }, .port = port };
	__u32 hash = mix((__u32)(addr1 ^ addr1 >> 32) ^ port);
	__u64 *proven;

	if (!known.classes[port & (PORT_CLASSES - 1)])
		return false;
	for (__u32 i = 0; i < KNOWN_PROBES; i++) {
		volatile struct server_key *k = &known.servers[(hash + i) & (KNOWN_SERVERS - 1)];

		if (k->port == port && k->addr[1] == addr1 && k->addr[0] == addr0)
			return true;
	}
	proven = bpf_map_lookup_elem(&learned, &key);
	return proven && bpf_ktime_get_ns() - *proven < SERVER_KEEP;
}

static __always_inline void learn(__u64 addr0, __u64 addr1, __u32 port)
{
	struct server_key key = { .addr = { addr0, addr1 }, .port = port };
	__u64 now = bpf_ktime_get_ns();
	__u64 *proven = bpf_map_lookup_elem(&learned, &key);
	volatile __u8 *class = &known.classes[port & (PORT_CLASSES - 1)];

	if (!*class)
		*class = 1;
	if (!proven)
		bpf_map_update_elem(&learned, &key, &now, BPF_ANY);
	else if (now - *proven > SERVER_RENEW)
		*proven = now;
}

/*
 * Learns the address from which a server sends that binds none. Where several sockets of
 * a namespace have its port, the one that sends may be another server's.
 */
static __always_inline void learn_sender(__u64 addr0, __u64 addr1, __u32 port, __u32 netns)
{
	for (__u32 i = 0; i < SERVER_SOCKETS; i++) {
		__u32 listed = known.sockets[i].netns;

		if (!listed)
			return;
		if (listed == netns && known.sockets[i].port == port) {
			learn(addr0, addr1, port);
			return;
		}
	}
}

/* The ends with an observed port. */
static __always_inline __u8 observed_ends(__u16 sport, __u16 dport)
{
	return (is_dns_port(sport, 0) ? SERVER_SRC : 0) | (is_dns_port(0, dport) ? SERVER_DST : 0);
}

/* The end of a packet whose connection was made to an observed port; 0: it was not. */
static __always_inline __u8 tracked_end(unsigned long nfct)
{
	if (!was_dns_port(nfct))
		return 0;
	return (nfct & ~NFCT_PTRMASK) >= IP_CT_IS_REPLY ? SERVER_SRC : SERVER_DST;
}

static __always_inline __u8 learned_ends(const __u64 *src, __u16 sport, const __u64 *dst, __u16 dport)
{
	return (is_learned(src[0], src[1], sport) ? SERVER_SRC : 0) | (is_learned(dst[0], dst[1], dport) ? SERVER_DST : 0);
}

/* Every namespace has its own: such an address says nothing elsewhere. */
static __always_inline bool is_loopback(const __u64 *addr)
{
	const __u8 *bytes = (const __u8 *)addr;

	if (addr[0])
		return false;
	return be32(bytes + 8) == 0xffff ? bytes[12] == 127 : addr[1] == bpf_cpu_to_be64(1);
}

/* Learns where connection tracking sends what is for an observed port. */
static __always_inline void learn_translated(__u8 ip_version, unsigned long nfct)
{
	struct nf_conn *ct = tracked(nfct);
	struct nat_tuple reply;
	__u64 addr[2];

	if (!ct)
		return;
	read_tuple(&reply, &ct->tuplehash[1].tuple);
	if (is_dns_port(reply.sport, 0))
		return;
	if (ip_version == 4)
		map_ipv4((__u8 *)addr, reply.src);
	else
		__builtin_memcpy(addr, reply.src, sizeof(addr));
	if (!is_loopback(addr))
		learn(addr[0], addr[1], reply.sport);
}

/* Which ends of the packet in the scratch are servers; 0: it is no DNS packet. */
static __always_inline __u8 server_ends(struct scratch *s, unsigned long nfct)
{
	__u8 ends = observed_ends(s->e.sport, s->e.dport);
	__u64 src[2], dst[2];

	if (ends)
		return ends;
	/* The entry belongs to the outer packet, or to what an error is about. */
	if (!(s->e.parts & PART_OUTER))
		ends = tracked_end(nfct);
	if (ends) {
		learn_translated(s->e.ip_version, nfct);
		return s->e.parts & PART_ICMP ? ends ^ (SERVER_SRC | SERVER_DST) : ends;
	}
	if (!may_be_learned(s->e.sport, s->e.dport))
		return 0;
	__builtin_memcpy(src, s->e.saddr, sizeof(src));
	__builtin_memcpy(dst, s->e.daddr, sizeof(dst));
	return learned_ends(src, s->e.sport, dst, s->e.dport);
}

#endif
