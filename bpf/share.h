/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Which lookups are reported where user space cannot follow all of them: a share,
 * and every packet of each. To let a full ring decide would take some packets of
 * all of them, and leave lookups that look unanswered.
 */
#ifndef DNSTRACE_SHARE_H
#define DNSTRACE_SHARE_H

#define WHOLE_SHARE	65536

/*
 * Of WHOLE_SHARE; user space changes it while the programs run (tracer/capture).
 * In a section of its own, which user space maps into its memory.
 */
volatile __u32 share SEC(".data.share") = WHOLE_SHARE;

/*
 * Both ports of a TCP connection in one word, the same in both directions: those
 * that the client used, where connection tracking tells. Behind the translation of a
 * port it does not, as inside the pods of a Service with another port: there it is
 * another lot.
 */
static __always_inline __u16 both_ports(const struct scratch *s, unsigned long nfct)
{
	struct nf_conn *ct = tracked(nfct);

	if (!ct || s->e.parts & PART_OUTER || !(ct_status(ct) & IPS_NAT_MASK))
		return s->e.sport ^ s->e.dport;
	return bpf_ntohs((__u16)(load32(&ct->tuplehash[0].tuple.src.u.all) ^
				 load32(&ct->tuplehash[0].tuple.dst.u.all)));
}

/*
 * By what all packets of a lookup have in common: over UDP the DNS ID, over TCP,
 * where only the first segment has one, the two ports. A fragment without the ID is
 * in every share: it is of no use without its first, and rare. So is a datagram in
 * pages before Linux 6.12, of which the program sees no ID (paged.h).
 */
static __always_inline bool in_share(const struct scratch *s, unsigned long nfct, __u32 captured)
{
	__u32 limit = share, word;

	if (limit >= WHOLE_SHARE)
		return true;
	if (s->e.protocol == IPPROTO_UDP) {
		if (captured < 2)
			return true;
		word = be16(s->tail);
	} else {
		word = both_ports(s, nfct);
	}
	/* Fibonacci hashing: IDs may be counted up. */
	return (__u16)(word * 40503) < limit;
}

#endif
