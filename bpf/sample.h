/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Which lookups are reported at all where that is to be a sample: those that the
 * plugin records at the same rate, by the last four bytes of the trace id
 * (trace/sample.go). They are part of a SHA-256 over client, DNS ID and question
 * (trace/identity.go), or of what a TRACEPARENT of the query says.
 *
 * The hash takes 2 us where a packet that is reported takes 0.4, and 4 us for names of
 * more than 30 bytes, so it is taken of a lookup's first packet and kept for the other
 * seven. Those then take 0.4 to 0.7 us, 7 ns for each byte of the name. A query's
 * TRACEPARENT is not in its response: what was drawn for the query counts there, too.
 * Without sampling the verifier removes all of this.
 *
 * A client's address may be translated on the way, and connection tracking tells of it
 * on some devices only: before and behind that the lookup has two lots. User space
 * says so in its record.
 *
 * TCP is always reported: only a connection's first segment of a message has the
 * question. So is what has no question, as a later fragment.
 */
#ifndef DNSTRACE_SAMPLE_H
#define DNSTRACE_SAMPLE_H

#define WHOLE_SAMPLE	(1ULL << 32)

/* Lots below it are reported; set before loading. */
const volatile __u64 sample_below = WHOLE_SAMPLE;

#define FLOW_NAME	25			/* bytes in front of the name in what is hashed */
#define MAX_NAME	255			/* RFC 1035, section 2.3.4 */
#define SHA_BLOCK	64
#define SHA_BLOCKS	5			/* with nine bytes of padding */

#define OPTION_TRACEPARENT	65500		/* trace/traceparent.go */
#define OPTIONS_MAX		8		/* that are looked at */
#define TYPE_OPT		41

struct lot_key {
	__u8 client[16];
	__u16 port;
	__u16 id;
	__u32 question;		/* a hash: ports and IDs are used again */
};

/*
 * What was drawn. The oldest make room: at 10,000 lookups a second they are three
 * seconds old, and what a flow draws is the same again. User space makes it small
 * where nothing is drawn.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct lot_key);
	__type(value, __u8);
} lots SEC(".maps");

/* Where the hash is made; not on the stack, which has no room for it. */
struct draw {
	__u8 text[SHA_BLOCKS * SHA_BLOCK];
	__u32 w[16];		/* the message schedule, as far as it is needed */
	__u32 h[8];
	__u32 v[8];		/* working variables, a to h */
	/* In memory, where the verifier does not follow each value that they could have. */
	__u32 name;		/* bytes of the name */
	__u32 label;		/* of its label that are left */
	__u32 question;		/* a hash */
	__u32 lot;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct draw);
} draws SEC(".maps");

const __u32 sha_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

const __u32 sha_start[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static __always_inline __u32 rotr(__u32 x, __u32 n)
{
	return x >> n | x << (32 - n);
}

/*
 * One block of SHA-256 (FIPS 180-4, section 6.2.2). A global function, as in_sample():
 * the verifier looks at those once, and not at each call anew. All three together may
 * have 512 bytes of stack, so this one keeps its variables in memory.
 */
__noinline int sha_block(__u32 kind, __u64 block)
{
	struct draw *d = bpf_map_lookup_elem(&draws, &kind);
	__u64 from = block * SHA_BLOCK;
	volatile __u32 *v;

	if (!d)
		return 0;
	barrier_var(from);
	if (from > sizeof(d->text) - SHA_BLOCK)
		return 0;
	v = d->v;
	for (int i = 0; i < 8; i++)
		v[i] = d->h[i];
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 64; i++) {
		__u32 w, t1, t2;

		if (i < 16) {
			w = be32(&d->text[from + i * 4]);
		} else {
			__u32 w15 = d->w[(i + 1) & 15], w2 = d->w[(i + 14) & 15];

			w = d->w[i & 15] + d->w[(i + 9) & 15] + (rotr(w15, 7) ^ rotr(w15, 18) ^ w15 >> 3) +
			    (rotr(w2, 17) ^ rotr(w2, 19) ^ w2 >> 10);
		}
		d->w[i & 15] = w;
		t2 = v[4];
		t1 = v[7] + (rotr(t2, 6) ^ rotr(t2, 11) ^ rotr(t2, 25)) + ((t2 & v[5]) ^ (~t2 & v[6])) + sha_k[i & 63] + w;
		v[7] = v[6];
		v[6] = v[5];
		v[5] = t2;
		v[4] = v[3] + t1;
		t2 = v[0];
		w = (rotr(t2, 2) ^ rotr(t2, 13) ^ rotr(t2, 22)) + ((t2 & v[1]) ^ (t2 & v[2]) ^ (v[1] & v[2]));
		v[3] = v[2];
		v[2] = v[1];
		v[1] = t2;
		v[0] = t1 + w;
	}
	for (int i = 0; i < 8; i++)
		d->h[i] += v[i];
	return 0;
}

/* Reads the question's name in lower case; false if it is not all there. */
static __noinline bool read_name(struct scratch *s, struct draw *d, __u64 captured)
{
	volatile __u32 *label = &d->label, *hash = &d->question, *name = &d->name;

	*name = 0;
	*label = 0;
	*hash = 2166136261;	/* FNV-1a */
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MAX_NAME; i++) {
		__u32 c = s->tail[DNS_HEADER + i], left = *label;

		if (DNS_HEADER + i + 5 > captured)
			break;
		if (!left) {
			if (c > 63)	/* a pointer, and nothing that it could point to */
				break;
			*label = c;
		} else {
			*label = left - 1;
			if (c - 'A' < 26)
				c += 'a' - 'A';
		}
		d->text[FLOW_NAME + i] = c;
		*hash = (*hash ^ c) * 16777619;
		if (!left && !c) {
			*name = i + 1;
			break;
		}
	}
	return *name;
}

/* Whose lookup it is: the client as its server sees it. */
static __always_inline void read_client(struct lot_key *key, const struct scratch *s, unsigned long nfct)
{
	bool response = s->tail[2] & 0x80;
	struct nf_conn *ct = tracked(nfct);
	const struct nf_conntrack_tuple *reply;
	__u32 v4;

	__builtin_memcpy(key->client, response ? s->e.daddr : s->e.saddr, sizeof(key->client));
	key->port = response ? s->e.dport : s->e.sport;
	if (!ct || s->e.parts & PART_OUTER || !(ct_status(ct) & IPS_NAT_MASK))
		return;
	reply = &ct->tuplehash[1].tuple;
	key->port = bpf_ntohs((__u16)load32(&reply->dst.u.all));
	if (s->e.ip_version == 4) {
		v4 = load32(&reply->dst.u3.all);
		map_ipv4(key->client, (__u8 *)&v4);
	} else {
		load(key->client, sizeof(key->client), &reply->dst.u3.all);
	}
}

static __always_inline void put16(__u8 *p, __u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}

/* The lot of a flow (trace.NewFlow): the third word of the hash. */
static __noinline __u32 flow_lot(struct scratch *s, struct draw *d, __u32 kind, const struct lot_key *key)
{
	__u64 name = d->name, end, last;

	if (name > MAX_NAME)
		return 0;
	d->text[0] = s->e.protocol;
	__builtin_memcpy(&d->text[1], key->client, 16);
	put16(&d->text[17], key->port);
	put16(&d->text[19], key->id);
	__builtin_memcpy(&d->text[21], &s->tail[DNS_HEADER + name], 4);	/* type and class */
	/* A one and zeros, and at the end of the last block the length in bits. */
	end = FLOW_NAME + name;
	last = (end + 8) / SHA_BLOCK;
#pragma clang loop unroll(disable)
	for (int i = 0; i < SHA_BLOCK + 8; i++) {
		__u64 at = end + i;

		barrier_var(at);
		if (at >= sizeof(d->text))
			break;
		d->text[at] = i ? 0 : 0x80;
	}
	barrier_var(last);
	if (last >= SHA_BLOCKS)
		return 0;
	put16(&d->text[last * SHA_BLOCK + SHA_BLOCK - 2], end * 8);
	__builtin_memcpy(d->h, sha_start, sizeof(d->h));
#pragma clang loop unroll(disable)
	for (int i = 0; i < SHA_BLOCKS; i++) {
		if (i > last)
			break;
		sha_block(kind, i);
	}
	return d->h[2];
}

/*
 * Whether a query carries a TRACEPARENT, which names the trace instead, and the lot
 * of that: the first record after the question is nearly always the OPT record that
 * has it. Several are as good as none (trace/traceparent.go).
 */
static __noinline bool stamped_lot(struct scratch *s, struct draw *d, __u64 captured)
{
	__u64 at = d->name, end;
	__u32 found = 0;
	__u8 *p;

	if (s->tail[2] & 0x80 || be16(&s->tail[6]) || be16(&s->tail[8]) || !be16(&s->tail[10]))
		return false;
	at += DNS_HEADER + 4;
	barrier_var(at);
	if (at > MAX_PAYLOAD - 11 || at + 11 > captured)
		return false;
	p = s->tail + at;
	if (p[0] || be16(p + 1) != TYPE_OPT)
		return false;
	at += 11;
	end = at + be16(p + 9);
	if (end > captured)
		return false;
#pragma clang loop unroll(disable)
	for (int i = 0; i < OPTIONS_MAX; i++) {
		__u16 length;

		barrier_var(at);
		if (at > MAX_PAYLOAD - 32 || at + 4 > end)
			break;
		p = s->tail + at;
		length = be16(p + 2);
		if (be16(p) == OPTION_TRACEPARENT) {
			if (++found > 1)
				return false;
			if ((length != 18 && length != 26 && length != 27) || at + 4 + length > end || p[4] ||
			    !(be32(p + 6) | be32(p + 10) | be32(p + 14) | be32(p + 18)))
				return false;
			d->lot = be32(p + 4 + 14);
		}
		at += 4 + length;
	}
	return found;
}

/* Whether the packet in the scratch of a kind is reported. */
__noinline int in_sample(__u32 kind, __u64 nfct, __u64 captured)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &kind);
	struct draw *d = bpf_map_lookup_elem(&draws, &kind);
	struct lot_key key = {};
	__u8 *known, in;

	if (!s || !d || s->e.protocol != IPPROTO_UDP || captured < DNS_HEADER || be16(&s->tail[4]) != 1 ||
	    !read_name(s, d, captured))
		return 1;
	read_client(&key, s, nfct);
	key.id = be16(s->tail);
	key.question = d->question;
	known = bpf_map_lookup_elem(&lots, &key);
	if (known)
		return *known;
	if (!stamped_lot(s, d, captured))
		d->lot = flow_lot(s, d, kind, &key);
	in = d->lot < sample_below;
	bpf_map_update_elem(&lots, &key, &in, BPF_ANY);
	return in;
}

#endif
