/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Which lookups are reported where that is not all of them: a sample that was asked
 * for, and as many of it as user space can follow (load shedding). To let a full ring
 * decide would take some packets of every lookup, and leave lookups that look
 * unanswered.
 *
 * Both go by one hash of the DNS ID and the client's port (trace/sample.go, which has
 * test vectors): all packets of a lookup have them, and a lookup that is reported at one
 * rate is reported at every higher one. Of TCP only the first segment of a message has
 * an ID, so a connection is reported or left out with all that is asked on it.
 *
 * A translation may give the client another port. Where connection tracking tells, it is
 * the port that the client used; elsewhere the two sides of the translation differ, and
 * user space says so in the record.
 */
#ifndef DNSTRACE_SAMPLING_H
#define DNSTRACE_SAMPLING_H

#define WHOLE_SAMPLE	(1ULL << 32)
#define WHOLE_SHARE	0xffffffffU

/* Hashes below it are in the sample; set before loading. */
const volatile __u64 sample_below = WHOLE_SAMPLE;

/*
 * Hashes up to it are reported; user space changes it while the programs run
 * (tracer/capture). In a section of its own, which user space maps into its memory.
 */
volatile __u32 share SEC(".data.share") = WHOLE_SHARE;

static __always_inline bool reports_all(void)
{
	return sample_below >= WHOLE_SAMPLE && share == WHOLE_SHARE;
}

/* One to one, so that neither IDs nor ports that are counted up fall unevenly. */
static __always_inline __u32 sampling_hash(__u16 id, __u16 client_port)
{
	return mix((__u32)id << 16 | client_port);
}

/* Whether lookups with a hash are reported; counts a packet that is not. */
static __always_inline bool in_share(__u32 hash)
{
	if (sample_below < WHOLE_SAMPLE && hash >= sample_below) {
		__sync_fetch_and_add(&counters(bpf_get_smp_processor_id())->sampled_out, 1);
		return false;
	}
	if (hash > share) {
		__sync_fetch_and_add(&counters(bpf_get_smp_processor_id())->shed, 1);
		return false;
	}
	return true;
}

/* The port that the client used, by the packet's entry; 0: nothing is translated. */
static __always_inline __u16 original_client_port(unsigned long nfct)
{
	struct nf_conn *ct = tracked(nfct);

	if (!ct || !(ct_status(ct) & IPS_NAT_MASK))
		return 0;
	return bpf_ntohs((__u16)load32(&ct->tuplehash[0].tuple.src.u.all));
}

/* TCP says nothing of who asks: it is the end that is no server. */
static __always_inline __u16 tcp_client_port(__u16 sport, __u16 dport, __u8 servers)
{
	if (servers == (SERVER_SRC | SERVER_DST))
		return sport < dport ? sport : dport;
	return servers == SERVER_SRC ? dport : sport;
}

static __always_inline __u32 udp_hash(const __u8 *dns, __u16 sport, __u16 dport, unsigned long nfct)
{
	__u16 port = original_client_port(nfct);

	if (!port)
		port = dns[2] & DNS_RESPONSE ? dport : sport;
	return sampling_hash(be16(dns), port);
}

static __always_inline __u32 tcp_hash(__u16 sport, __u16 dport, __u8 servers, unsigned long nfct)
{
	__u16 port = original_client_port(nfct);

	return sampling_hash(0, port ? port : tcp_client_port(sport, dport, servers));
}

/*
 * Whether the packet in the scratch is reported. What has no ID that could be read is:
 * it is rare, as a later fragment, or an error that quotes the ports and no more.
 */
static __always_inline bool is_chosen(struct scratch *s, unsigned long nfct, __u32 captured)
{
	const __u8 *dns = s->tail;

	if (reports_all())
		return true;
	if (s->e.parts & PART_OUTER)	/* the entry is that of the tunnel */
		nfct = 0;
	if (s->e.protocol != IPPROTO_UDP)
		return in_share(tcp_hash(s->e.sport, s->e.dport, s->e.servers, nfct));
	if (s->e.parts & PART_FRAGMENT && s->fragment.offset)
		return true;
	if (captured < 4) {
		/* Of a payload in pages the front may be with the headers. */
		if (!has(s, 4))
			return true;
		load(s->h, 4, (void *)s->at);
		dns = s->h;
	}
	return in_share(udp_hash(dns, s->e.sport, s->e.dport, nfct));
}

#endif
