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
 * Inside those pods there is no entry to tell: servers.h has what is done there.
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

/*
 * Reads count and maximum of connection tracking from the table of its sysctls,
 * if that is what header is: anything else may stand there, so each step is a
 * read that may fail. Their order (net/netfilter/nf_conntrack_standalone.c) is
 * that of Linux 2.6.22 to this day.
 */
static __always_inline bool read_sysctls(struct drop *d, struct ctl_table_header *header)
{
	struct ctl_table *max = 0, *count;
	void *at = 0;
	union {
		char text[24];
		__u64 words[3];
	} name = {}, want = { "nf_conntrack_max" };

	if (bpf_probe_read_kernel(&max, sizeof(max), &header->ctl_table) ||
	    bpf_probe_read_kernel(&at, sizeof(at), &max->procname) ||
	    bpf_probe_read_kernel(name.text, sizeof("nf_conntrack_max"), at) ||
	    name.words[0] != want.words[0] || name.words[1] != want.words[1] || name.words[2])
		return false;
	count = (void *)max + bpf_core_type_size(struct ctl_table);
	if (bpf_probe_read_kernel(&at, sizeof(at), &count->data) ||
	    bpf_probe_read_kernel(&d->ct_count, sizeof(d->ct_count), at) ||
	    bpf_probe_read_kernel(&at, sizeof(at), &max->data) ||
	    bpf_probe_read_kernel(&d->ct_max, sizeof(d->ct_max), at))
		d->ct_max = 0;
	return true;
}

#define MAX_NET_IDS	128	/* some 40 are used with every module of a distribution */

/*
 * How full the table is that the packet found no place in, or had not come to.
 * Since Linux 5.13 connection tracking keeps what it has of a namespace under a
 * number that it gets when it is loaded and that only kernels with
 * CONFIG_KALLSYMS_ALL tell: the entry with the right sysctls is it.
 */
static __always_inline void read_table(struct drop *d, struct net_device *dev, struct sock *sk)
{
	struct ctl_table_header *header = 0;
	struct nf_conntrack_net *ct = 0;
	struct net *net = 0;
	struct net_generic *gen;
	__u32 len;

	if (dev)
		net = (void *)load64(&dev->nd_net.net);
	else if (sk)
		net = (void *)load64(&sk->__sk_common.skc_net.net);
	if (bpf_core_field_exists(net->ct.sysctl_header)) {
		header = (void *)load64(&net->ct.sysctl_header);
		read_sysctls(d, header);
		return;
	}
	if (!net || !bpf_core_type_exists(struct nf_conntrack_net))
		return;
	gen = (void *)load64(&net->gen);
	len = load32(&gen->s.len);
	/* The first numbers stand for the bytes of the head. */
	for (__u32 id = 0; id < MAX_NET_IDS && id < len; id++) {
		if (bpf_probe_read_kernel(&ct, sizeof(ct), (void *)gen + id * sizeof(ct)) ||
		    bpf_probe_read_kernel(&header, sizeof(header), &ct->sysctl_header))
			continue;
		if (read_sysctls(d, header))
			return;
	}
}

#endif
