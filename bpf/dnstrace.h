/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* What the programs tell user space: one event a packet and hook. */
#ifndef DNSTRACE_H
#define DNSTRACE_H

enum event_kind {
	EVENT_TX = 1,		/* given to a device for transmission */
	EVENT_RX = 2,		/* received from a device */
	EVENT_DROP = 3,		/* freed before it got where it was going */
};

/* What follows the payload, in this order; event.parts tells. */
enum event_part {
	PART_PROCESS = 1,	/* struct sender */
	PART_NAT = 2,		/* struct nat */
	PART_DROP = 4,		/* struct drop */
};

/*
 * The head of an event. Behind it come the payload, as far as it was captured,
 * and the parts: the fewer bytes an event has, the fewer cache lines of the ring
 * it touches, and those are what it costs.
 */
struct event {
	__u64 time;		/* ns, CLOCK_MONOTONIC */
	__u64 skb;		/* the same from pod to pod within milliseconds, then reused */
	__u32 netns;		/* inode number; 0: unknown */
	__u32 ifindex;		/* 0: the packet had no device */
	__u32 seq;		/* TCP: sequence number of the segment */
	__u16 sport;		/* host order */
	__u16 dport;
	__u16 payload_len;	/* bytes above UDP or TCP, on the wire */
	__u16 captured;		/* bytes of it that follow */
	__u8 kind;		/* enum event_kind */
	__u8 ip_version;	/* 4, 6 */
	__u8 protocol;		/* IPPROTO_UDP, IPPROTO_TCP */
	__u8 tcp_flags;
	__u8 parts;		/* enum event_part */
	__u8 pad[7];
	char ifname[16];
	__u8 saddr[16];		/* IPv4 as ::ffff:a.b.c.d */
	__u8 daddr[16];
};

/* The process that owns the sending socket. */
struct sender {
	__u32 tgid;
	char comm[16];
};

struct nat_tuple {
	__u8 src[16];		/* IPv4 in the first four bytes */
	__u8 dst[16];
	__u16 sport;		/* host order */
	__u16 dport;
};

/* Both directions of a tracked connection with translated addresses. */
struct nat {
	struct nat_tuple orig;
	struct nat_tuple reply;
};

struct drop {
	__u64 location;		/* who freed it (kernel address) */
	__u32 reason;		/* enum skb_drop_reason */
	__u32 pad;
};

/* Per CPU, so that no two write one cache line. */
struct counters {
	__u64 lost;		/* events that found the ring full */
	__u64 emitted;
	__u64 pad[6];
};

#endif
