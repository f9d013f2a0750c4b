//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
/*
 * A node whose pods' packets pass its network stack by, as with Cilium's BPF host
 * routing: tc programs translate the Service a packet at a time, give pods' traffic
 * the node's address on the uplink, and hand packets over into the pods' namespaces.
 *
 * program         at                              does
 * from_pod        ingress of a pod's host device  policy, Service, delivery
 * from_uplink     ingress of the uplink           source address back, delivery into the pod
 * to_uplink       egress of the uplink            source address
 *
 * While the Service has no endpoint, from_pod makes an ICMP error of what is sent to it
 * and gives that back, as Cilium does (bpf/lib/lb.h, tail_no_service_ipv4).
 *
 * A packet that bpf_redirect_peer() delivers is never received by a device of the
 * pod, as far as the kernel's tracepoints tell.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "service.h"
#include "refuse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct service service4, service6;
const volatile struct address node4, node6;
const volatile __u32 uplink;		/* its ifindex */
const volatile bool services;		/* translate the Service */
const volatile bool uplink_to_pod;	/* from_uplink delivers, and not the stack */
const volatile bool into_pod = true;	/* deliver behind the pod's device, and not to it */

/* Host devices of the pods, by the pods' addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct address);
	__type(value, __u32);
} pods SEC(".maps");

/* One side of a connection. */
struct end {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

/* Clients whose last query went to the Service address. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct end);
	__type(value, __u8);
} clients SEC(".maps");

/* Who sends with the node's address, by the other side's end and the own port. */
struct outside {
	struct end peer;
	__be16 port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct outside);
	__type(value, struct address);
} masqueraded SEC(".maps");

/* Not 0: the Service has no endpoint. */
__u64 no_endpoint;

/* Packets that were delivered into a pod, from pods and from the uplink, sent with the
 * node's address, dropped, and refused.
 */
__u64 delivered, delivered_from_uplink, sent_out, dropped, refused;

#define DNS_PORT	bpf_htons(53)
#define DNS_HLEN	12

struct packet {
	struct address src, dst;
	__be16 sport, dport;
	__u8 protocol;
	bool v6;
	__u32 l4;	/* offset of the transport header */
};

static __always_inline int parse_v4(struct __sk_buff *skb, struct packet *p)
{
	__u8 ip[20];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(ip)) || ip[0] != 0x45)
		return -1;
	p->protocol = ip[9];
	p->src = mapped(*(__be32 *)(ip + 12));
	p->dst = mapped(*(__be32 *)(ip + 16));
	p->l4 = ETH_HLEN + 20;
	return 0;
}

static __always_inline int parse_v6(struct __sk_buff *skb, struct packet *p)
{
	__u8 next;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next, sizeof(next)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 8, &p->src, sizeof(p->src)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 24, &p->dst, sizeof(p->dst)))
		return -1;
	p->protocol = next;
	p->v6 = true;
	p->l4 = ETH_HLEN + 40;
	return 0;
}

/* Reads a UDP or TCP packet without IP options; of others it returns -1. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	__be16 ports[2];
	int err;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		err = parse_v4(skb, p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		err = parse_v6(skb, p);
	else
		return -1;
	if (err || (p->protocol != IPPROTO_UDP && p->protocol != IPPROTO_TCP))
		return -1;
	if (bpf_skb_load_bytes(skb, p->l4, ports, sizeof(ports)))
		return -1;
	p->sport = ports[0];
	p->dport = ports[1];
	return 0;
}

/* Whether it is a message about a name whose first label is `drop`. */
static __always_inline bool named_drop(struct __sk_buff *skb, const struct packet *p)
{
	__u32 dns = p->l4 + 8;
	__u8 label[5], offset;

	if (p->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, p->l4 + 12, &offset, sizeof(offset)))
			return false;
		dns = p->l4 + (offset >> 4) * 4 + 2;
	}
	if (bpf_skb_load_bytes(skb, dns + DNS_HLEN, label, sizeof(label)))
		return false;
	return label[0] == 4 && label[1] == 'd' && label[2] == 'r' && label[3] == 'o' && label[4] == 'p';
}

/* Replaces an address of the packet in its header and checksums. */
static __always_inline void set_address(struct __sk_buff *skb, struct packet *p, bool dst,
					struct address to)
{
	__u32 sum = p->l4 + (p->protocol == IPPROTO_UDP ? 6 : 16);
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	struct address *from = dst ? &p->dst : &p->src;
	__s64 diff;

	if (p->v6) {
		diff = bpf_csum_diff(from->word, sizeof(*from), to.word, sizeof(to), 0);
		bpf_l4_csum_replace(skb, sum, 0, diff, BPF_F_PSEUDO_HDR | flags);
		bpf_skb_store_bytes(skb, ETH_HLEN + (dst ? 24 : 8), &to, sizeof(to), 0);
	} else {
		bpf_l4_csum_replace(skb, sum, from->word[3], to.word[3], BPF_F_PSEUDO_HDR | 4 | flags);
		bpf_l3_csum_replace(skb, ETH_HLEN + 10, from->word[3], to.word[3], 4);
		bpf_skb_store_bytes(skb, ETH_HLEN + (dst ? 16 : 12), &to.word[3], 4, 0);
	}
	*from = to;
}

/* Replaces a port of the packet in its header and checksum. */
static __always_inline void set_port(struct __sk_buff *skb, struct packet *p, bool dst, __be16 to)
{
	__u32 sum = p->l4 + (p->protocol == IPPROTO_UDP ? 6 : 16);
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be16 *from = dst ? &p->dport : &p->sport;

	if (*from == to)
		return;
	bpf_l4_csum_replace(skb, sum, *from, to, 2 | flags);
	bpf_skb_store_bytes(skb, p->l4 + (dst ? 2 : 0), &to, sizeof(to), 0);
	*from = to;
}

/* Fields of constants, which are volatile, as values. */
static __always_inline struct address value(const volatile struct address *a)
{
	struct address v = { .word = { a->word[0], a->word[1], a->word[2], a->word[3] } };

	return v;
}

/* The Service, forth: a query to its address goes to the endpoint. */
static __always_inline void to_endpoint(struct __sk_buff *skb, struct packet *p,
					const volatile struct service *service)
{
	struct end client = { .address = p->src, .port = p->sport, .protocol = p->protocol };
	__u8 one = 1;

	if (p->dport != DNS_PORT || !same(&p->dst, &service->address))
		return;
	bpf_map_update_elem(&clients, &client, &one, BPF_ANY);
	set_address(skb, p, true, value(&service->endpoint));
	set_port(skb, p, true, service->endpoint_port);
}

/* The Service, back: the response to such a query comes from its address. */
static __always_inline void from_endpoint(struct __sk_buff *skb, struct packet *p,
					  const volatile struct service *service)
{
	struct end client = { .address = p->dst, .port = p->dport, .protocol = p->protocol };

	if (p->sport != service->endpoint_port || !same(&p->src, &service->endpoint) ||
	    !bpf_map_lookup_elem(&clients, &client))
		return;
	set_address(skb, p, false, value(&service->address));
	set_port(skb, p, false, DNS_PORT);
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	const volatile struct service *service;
	__u32 *pod;

	if (parse(skb, &p))
		return TC_ACT_OK;
	if (p.dport == DNS_PORT && named_drop(skb, &p) && bpf_map_lookup_elem(&pods, &p.src)) {
		__sync_fetch_and_add(&dropped, 1);
		return TC_ACT_SHOT;
	}
	service = p.v6 ? &service6 : &service4;
	if (services && no_endpoint && p.dport == DNS_PORT && same(&p.dst, &service->address)) {
		if (refuse(skb, p.v6))
			return TC_ACT_SHOT;
		__sync_fetch_and_add(&refused, 1);
		return bpf_redirect(skb->ifindex, 0);
	}
	if (services) {
		to_endpoint(skb, &p, service);
		from_endpoint(skb, &p, service);
	}
	pod = bpf_map_lookup_elem(&pods, &p.dst);
	if (pod) {
		__sync_fetch_and_add(&delivered, 1);
		return into_pod ? bpf_redirect_peer(*pod, 0) : bpf_redirect(*pod, 0);
	}
	return bpf_redirect_neigh(uplink, 0, 0, 0);
}

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	struct packet p = {};
	struct outside key = {};
	struct address *masked;
	__u32 *pod;

	if (parse(skb, &p))
		return TC_ACT_OK;
	key.peer.address = p.src;
	key.peer.port = p.sport;
	key.peer.protocol = p.protocol;
	key.port = p.dport;
	if (same(&p.dst, p.v6 ? &node6 : &node4)) {
		masked = bpf_map_lookup_elem(&masqueraded, &key);
		if (masked)
			set_address(skb, &p, true, *masked);
	}
	pod = bpf_map_lookup_elem(&pods, &p.dst);
	if (!pod || !uplink_to_pod)
		return TC_ACT_OK;
	__sync_fetch_and_add(&delivered_from_uplink, 1);
	return bpf_redirect_peer(*pod, 0);
}

SEC("tc")
int to_uplink(struct __sk_buff *skb)
{
	struct packet p = {};
	struct outside key = {};

	if (parse(skb, &p) || !bpf_map_lookup_elem(&pods, &p.src))
		return TC_ACT_OK;
	key.peer.address = p.dst;
	key.peer.port = p.dport;
	key.peer.protocol = p.protocol;
	key.port = p.sport;
	bpf_map_update_elem(&masqueraded, &key, &p.src, BPF_ANY);
	set_address(skb, &p, false, p.v6 ? value(&node6) : value(&node4));
	__sync_fetch_and_add(&sent_out, 1);
	return TC_ACT_OK;
}
