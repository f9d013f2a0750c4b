/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* What the programs tell user space: one event a packet and hook. */
#ifndef DNSTRACE_H
#define DNSTRACE_H

enum event_kind {
	EVENT_TX = 1,		/* given to a device for transmission */
	EVENT_RX = 2,		/* received from a device */
	EVENT_DROP = 3,		/* freed before it got where it was going */
};

struct nat_tuple {
	__u8 src[16];
	__u8 dst[16];
	__u16 sport;		/* host order */
	__u16 dport;
};

struct event {
	__u64 time;		/* ns, CLOCK_MONOTONIC */
	__u64 skb;		/* the same from pod to pod within milliseconds, then reused */
	__u64 location;		/* EVENT_DROP: who freed it (kernel address) */
	__u32 netns;		/* inode number; 0: unknown */
	__u32 ifindex;		/* 0: the packet had no device */
	__u32 reason;		/* EVENT_DROP: enum skb_drop_reason */
	__u32 seq;		/* TCP: sequence number of the segment */
	__u32 ct_status;	/* enum ip_conntrack_status; 0: no connection tracked */
	__u32 tgid;		/* process that owns the sending socket; 0: not proven */
	__u16 sport;		/* host order */
	__u16 dport;
	__u16 payload_len;	/* bytes above UDP or TCP, on the wire */
	__u16 captured;		/* bytes of it that follow the event */
	__u8 kind;		/* enum event_kind */
	__u8 ip_version;	/* 4, 6 */
	__u8 protocol;		/* IPPROTO_UDP, IPPROTO_TCP */
	__u8 tcp_flags;
	__u8 saddr[16];		/* IPv4 as ::ffff:a.b.c.d */
	__u8 daddr[16];
	struct nat_tuple orig;	/* set if ct_status has a NAT bit */
	struct nat_tuple reply;
	char ifname[16];
	char comm[16];		/* of tgid's thread */
	__u32 pad;
};

/* Per CPU, so that no two write one cache line. */
struct counters {
	__u64 lost;		/* events that found the ring full */
	__u64 emitted;
	__u64 pad[6];
};

#endif
