/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* What the programs tell user space: one event a packet and hook. */
#ifndef DNSTRACE_H
#define DNSTRACE_H

enum event_kind {
	EVENT_TX = 1,		/* given to a device for transmission */
	EVENT_RX = 2,		/* received from a device */
	EVENT_DROP = 3,		/* freed before it got where it was going */
	EVENT_DELIVERED = 4,	/* a datagram or segment at its receiver's socket */
	EVENT_READ = 5,		/* taken from its socket by a process */
};

/* What follows the payload, in this order; event.parts tells. */
enum event_part {
	PART_PROCESS = 1,	/* struct sender */
	PART_CGROUP = 2,	/* __u64: inode of the cgroup of the socket that sends, or receives */
	PART_NAT = 4,		/* struct nat */
	PART_DROP = 8,		/* struct drop */
	PART_OUTER = 16,	/* struct outer */
	PART_FRAGMENT = 32,	/* struct fragment */
	PART_ICMP = 64,		/* struct icmp_error */
	PART_THREAD = 128,	/* struct thread; behind the process */
	PART_SOCKET = 256,	/* __u64: the receiving socket (kernel address) */
	PART_LISTEN_FULL = 512,	/* no bytes: a SYN for a listener whose queue of connections is full */
	PART_WAITED = 1024,	/* struct waited; behind the drop */
};

/*
 * Of EVENT_READ, which has no packet: the addresses are those of a packet from the
 * socket's peer, if it has one; payload_len is how many bytes were read, the payload is
 * the front of what the reader got, and seq the number of the first byte of a stream.
 */

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
	__u16 parts;		/* enum event_part */
	__u16 skip;		/* not 0: the payload is as far behind the head, the parts are before it */
	__u16 vlan;		/* id of the outermost 802.1Q or 802.1ad tag; 0: none */
	__u16 inner_vlan;	/* of the tag behind it */
	__u8 servers;		/* enum server_end: the ends that are DNS servers */
	__u8 pad[7];
	char ifname[16];
	__u8 saddr[16];		/* IPv4 as ::ffff:a.b.c.d */
	__u8 daddr[16];
};

/* The process that sends, by the name of its first thread: its own, if it sets none. */
struct sender {
	__u32 tgid;
	char comm[16];
};

/* The thread of it that sends, where that is another. */
struct thread {
	__u32 tid;
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

#define DROP_CALLERS 12

struct drop {
	__u64 location;		/* who freed it (kernel address) */
	__u32 reason;		/* enum skb_drop_reason */
	__u32 ct_status;	/* enum ip_conntrack_status; 0: no entry, or a new one */
	__u32 ct_known;		/* whether the packet has a connection tracking entry */
	__u32 ct_count;		/* entries in the namespace's table, where it has none for the packet */
	__u32 ct_max;		/* how many there may be; 0: neither is known */
	__u8 other_host;	/* PACKET_OTHERHOST: its link layer address is another machine's */
	__u8 pad[3];
	__u64 callers[DROP_CALLERS];	/* return addresses, innermost first; 0 ends */
};

/*
 * Of a drop: the packet waited for a link address, if reason and place say so. Else this
 * is of another that was in the same buffer, with the same ports.
 */
struct waited {
	__u64 time;		/* when it was sent: ns, CLOCK_MONOTONIC */
	struct sender who;	/* who sent it; tgid 0: not proven */
	struct thread thread;	/* tid 0: who's first */
};

enum tunnel {
	TUNNEL_VXLAN = 1,	/* RFC 7348 */
	TUNNEL_GENEVE = 2,	/* RFC 8926 */
	TUNNEL_IPIP = 3,	/* RFC 2003, RFC 2473, RFC 4213 */
	TUNNEL_GRE = 4,		/* RFC 2784, RFC 2890 */
};

/* The packet of a tunnel around this one. */
struct outer {
	__u8 saddr[16];		/* IPv4 as ::ffff:a.b.c.d */
	__u8 daddr[16];
	__u16 sport;		/* host order; 0 where the tunnel has no ports */
	__u16 dport;
	__u32 vni;		/* or the key of GRE; 0: none */
	__u8 kind;		/* enum tunnel */
	__u8 pad[3];
};

/* Where in its datagram a fragment stands. */
struct fragment {
	__u32 id;
	__u16 offset;		/* bytes of the datagram's payload before it */
	__u16 length;		/* bytes of it here */
	__u8 more;		/* others follow */
	__u8 pad[3];
};

/*
 * The ICMP error that quotes the packet of the event: the event's addresses,
 * ports and payload are those of the quoted packet.
 */
struct icmp_error {
	__u8 saddr[16];		/* who complains */
	__u8 daddr[16];
	__u32 mtu;		/* where it was too big; else 0 */
	__u8 type;
	__u8 code;
	__u8 pad[2];
};

/* Per CPU, so that no two write one cache line. */
struct counters {
	__u64 emitted;
	__u64 lost[8];		/* events that found the ring full, or their scratch in use, by enum event_kind */
	__u64 last_lost;	/* ns, CLOCK_MONOTONIC: when the last one did */
	__u64 shed;		/* packets of lookups that are left out under load */
	__u64 sampled_out;	/* packets of lookups that are not in the sample */
};

#endif
