/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* A Service and the addresses that it is made of. */
#ifndef DATAPATH_SERVICE_H
#define DATAPATH_SERVICE_H

/* IPv4 as ::ffff:a.b.c.d. */
struct address {
	__be32 word[4];
};

static __always_inline struct address mapped(__be32 v4)
{
	struct address a = { .word = { 0, 0, bpf_htonl(0xffff), v4 } };

	return a;
}

static __always_inline bool same(const struct address *a, const volatile struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/* A Service on port 53 with one endpoint. */
struct service {
	struct address address;
	struct address endpoint;
	__be16 endpoint_port;
};

#endif
