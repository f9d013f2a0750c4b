/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Which network namespaces are observed: all, or those that are listed. It is
 * asked of packets that may be DNS only, before anything of them is parsed.
 */
#ifndef DNSTRACE_NETNS_H
#define DNSTRACE_NETNS_H

#define MAX_NETNS	32

/*
 * How many are listed; set before loading. 0: all are observed, and the verifier
 * removes the comparison.
 */
const volatile __u32 netns_listed;

/*
 * Their inodes, 0 for one that is not there at present: a name may come back with
 * another inode. In a section of its own, which user space maps into its memory:
 * it needs no privilege to change it.
 */
volatile __u32 netns_inodes[MAX_NETNS] SEC(".data.netns");

/*
 * The device of a packet that is freed; 0: there is none. In the queue of a UDP socket
 * something else is kept in its place (dev_scratch, net/ipv4/udp.c), which is positive
 * where the kernel's addresses are negative.
 */
static __always_inline struct net_device *device_of_dropped(struct sk_buff *skb)
{
	return (__s64)load64(&skb->dev) < 0 ? skb->dev : 0;
}

/* The inode of the namespace that a packet is in; 0: unknown. */
static __always_inline __u32 netns_of(struct net_device *dev, struct sock *sk)
{
	if (dev)
		return dev->nd_net.net->ns.inum;
	/* A packet dropped on its way out has no device yet. */
	return sk ? sk->__sk_common.skc_net.net->ns.inum : 0;
}

/* Where the namespace is unknown, it is not known to be a listed one. */
static __always_inline bool is_observed(__u32 inode)
{
	if (!netns_listed)
		return true;
	if (!inode)
		return false;
	for (__u32 i = 0; i < MAX_NETNS && i < netns_listed; i++) {
		if (netns_inodes[i] == inode)
			return true;
	}
	return false;
}

#endif
