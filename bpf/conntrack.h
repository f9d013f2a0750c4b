/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * What connection tracking knows of a packet: readable at the bridge and on every
 * way out of the node, not inside the pod. A packet without an entry costs one
 * comparison.
 */
#ifndef DNSTRACE_CONNTRACK_H
#define DNSTRACE_CONNTRACK_H

#define TUPLE_BYTES	40	/* sizeof(struct nf_conntrack_tuple) since 2.6 */

static __always_inline struct nf_conn *tracked(unsigned long nfct)
{
	if (!bpf_core_type_exists(struct nf_conn))
		return 0;
	return (void *)(nfct & NFCT_PTRMASK);
}

static __always_inline __u32 ct_status(const struct nf_conn *ct)
{
	return load32(&ct->status);
}

/*
 * Whether the packet was addressed to a DNS port, or answers one that was, before
 * its port was translated: a Service may listen on another port than its pods.
 * Inside those pods there is no entry to tell: there the port has to be observed.
 */
static __always_inline bool was_dns_port(unsigned long nfct)
{
	struct nf_conn *ct = tracked(nfct);
	__u32 port;

	if (!ct || !(ct_status(ct) & IPS_NAT_MASK))
		return false;
	port = load32(&ct->tuplehash[0].tuple.dst.u.all);
	return is_dns_port(0, bpf_ntohs((__u16)port));
}

static __always_inline void read_tuple(struct nat_tuple *dst, const struct nf_conntrack_tuple *src)
{
	__u8 t[TUPLE_BYTES];

	load(t, sizeof(t), src);
	__builtin_memcpy(dst->src, t + bpf_core_field_offset(src->src.u3.all), 16);
	__builtin_memcpy(dst->dst, t + bpf_core_field_offset(src->dst.u3.all), 16);
	dst->sport = be16(t + bpf_core_field_offset(src->src.u.all));
	dst->dport = be16(t + bpf_core_field_offset(src->dst.u.all));
}

/* False if nothing is translated. */
static __always_inline bool read_nat(struct nat *nat, unsigned long nfct)
{
	struct nf_conn *ct = tracked(nfct);

	if (!ct || !(ct_status(ct) & IPS_NAT_MASK))
		return false;
	read_tuple(&nat->orig, &ct->tuplehash[0].tuple);
	read_tuple(&nat->reply, &ct->tuplehash[1].tuple);
	return true;
}

#endif
