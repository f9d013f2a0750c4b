//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
/*
 * Who holds the UDP sockets of a node that take queries: what packets do not tell
 * where a server never answers.
 *
 * program         hook             since   costs
 * listeners       iter/task_file   5.19    once a look: 0.4 ms for 200 sockets; nothing else
 *
 * It reads each open file of each process, once for threads that share them, and
 * tells of those that are UDP sockets with a port and without a peer. Iterators
 * are older (5.8); since 5.19 one that is attached can be read without privileges.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "listeners.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET		2
#define AF_INET6	10

/* Of kernel.h's types, what only this program reads. */
struct sock_common___listener {
	possible_net_t skc_net;
	__u16 skc_num;		/* local port, host order */
	__be16 skc_dport;
	unsigned short skc_family;
	unsigned char skc_ipv6only : 1;
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_rcv_saddr;
} __core;

struct sock___listener {
	struct sock_common___listener __sk_common;
	__u16 sk_protocol;
	struct sock_cgroup_data sk_cgrp_data;
} __core;

struct socket___listener {
	struct sock___listener *sk;
} __core;

struct task_struct___listener {
	int tgid;
	char comm[16];
	__u64 start_time;	/* ns, CLOCK_MONOTONIC */
} __core;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __core;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct___listener *task;
	__u32 fd;
	struct file *file;
} __core;

/* bpf2go takes the layout from here. */
const struct listening *unused_listening __attribute__((unused));

static __always_inline void copy_address(struct listening *l, struct sock___listener *sk)
{
	if (l->family == AF_INET) {
		__be32 v4 = sk->__sk_common.skc_rcv_saddr;

		__builtin_memcpy(l->addr, &v4, sizeof(v4));
		return;
	}
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 word = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[i];

		__builtin_memcpy(l->addr + 4 * i, &word, sizeof(word));
	}
	l->v6only = BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_ipv6only);
}

SEC("iter/task_file")
int listeners(struct bpf_iter__task_file *ctx)
{
	struct task_struct___listener *task = ctx->task;
	struct file *file = ctx->file;
	struct socket___listener *sock;
	struct sock___listener *sk;
	struct cgroup *cgroup;
	struct listening l = {};

	if (!task || !file)
		return 0;
	sock = (void *)bpf_sock_from_file(file);
	if (!sock)
		return 0;
	sk = sock->sk;
	if (!sk || sk->sk_protocol != IPPROTO_UDP)
		return 0;
	l.family = sk->__sk_common.skc_family;
	l.port = sk->__sk_common.skc_num;
	if ((l.family != AF_INET && l.family != AF_INET6) || !l.port || sk->__sk_common.skc_dport)
		return 0;
	l.netns = sk->__sk_common.skc_net.net->ns.inum;
	copy_address(&l, sk);
	cgroup = sk->sk_cgrp_data.cgroup;
	if (cgroup)
		l.cgroup = cgroup->kn->id;
	l.tgid = task->tgid;
	l.started = task->start_time;
	__builtin_memcpy(l.comm, task->comm, sizeof(l.comm));
	bpf_seq_write(ctx->meta->seq, &l, sizeof(l));
	return 0;
}
