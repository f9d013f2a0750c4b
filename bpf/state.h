/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* What is to be observed, and the memory in which an event is put together. */
#ifndef DNSTRACE_STATE_H
#define DNSTRACE_STATE_H

#define MAX_PORTS	8

/*
 * Payload bytes that follow an event. What is longer is cut: the question stands
 * at the front.
 */
#define MAX_PAYLOAD	2048

/* All parts of an event together, and a little for alignment. */
#define MAX_PARTS	(sizeof(struct sender) + sizeof(struct thread) + sizeof(struct nat) + sizeof(struct drop) + sizeof(struct waited) + sizeof(__u64) + \
			 sizeof(__u64) + sizeof(struct outer) + sizeof(struct fragment) + sizeof(struct icmp_error))

/*
 * Ports to observe, host order; set before loading, 0 matches nothing. Multicast
 * DNS (RFC 6762) is seen if its port, 5353, is among them, and not otherwise.
 */
const volatile __u16 ports[MAX_PORTS];

/*
 * ports[] is frozen before loading, so the verifier knows where the list ends
 * and removes the rest of the comparisons.
 */
static __always_inline bool is_dns_port(__u16 sport, __u16 dport)
{
#pragma unroll
	for (int i = 0; i < MAX_PORTS; i++) {
		if (!ports[i])
			return false;
		if (sport == ports[i] || dport == ports[i])
			return true;
	}
	return false;
}

/* Mixes 32 bits, one to one (lowbias32). */
static __always_inline __u32 mix(__u32 x)
{
	x ^= x >> 16;
	x *= 0x7feb352d;
	x ^= x >> 15;
	x *= 0x846ca68b;
	return x ^ x >> 16;
}

#define MAX_CPUS	256	/* counters are shared above that, rings are not */

/* In a section of its own, which user space maps into its memory. */
struct counters cpu_counters[MAX_CPUS] SEC(".data.counters");

static __always_inline struct counters *counters(__u32 cpu)
{
	return &cpu_counters[cpu & (MAX_CPUS - 1)];
}

/*
 * Where an event is put together before it is copied to its ring. The parser
 * keeps its state here too and not in registers: the verifier then need not
 * follow every way through the headers of a packet.
 */
struct scratch {
	struct event e;
	__u8 tail[MAX_PAYLOAD + MAX_PARTS];
	__u32 used;		/* bytes of tail */
	__u32 paged;		/* bytes of payload that are left to send_paged */
	__u32 before;		/* bytes of the packet before them */
	__u32 busy;		/* an event is being put together (guard.h) */
	/* From here on, nothing is sent as it stands. */
	__u8 h[40];		/* the header that is looked at */
	__u64 at;		/* kernel address of the next header, then of the payload */
	__u64 start;		/* kernel address of the packet's first byte */
	__u64 end;		/* of what is not in pages */
	__u32 left;		/* bytes of the IP packet from at on */
	__u16 ethertype;	/* of the header at at; 0: what protocol says */
	__u8 protocol;
	__u8 fragment_protocol;	/* what the headers of all fragments have in common */
	struct outer outer;
	struct fragment fragment;
	struct icmp_error icmp;
};

/*
 * One a CPU and kind of event: a drop in a system call may be interrupted by a packet,
 * and a segment that a reader takes from a backlog by a datagram. guard.h has what
 * happens where one program runs within itself.
 */
#define SCRATCHES	7
#define SCRATCH_SEGMENT	6		/* EVENT_DELIVERED of TCP */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* What the fragments of a datagram have in common. */
struct fragment_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 id;
	__u32 protocol;
};

/* What only the first has. */
struct fragment_ports {
	__u16 sport;
	__u16 dport;
	__u8 protocol;
	__u8 servers;		/* as of struct event */
	__u8 pad[2];
};

/*
 * Datagrams with a DNS port of which the first fragment was seen. The oldest make
 * room: a datagram is on its way for milliseconds.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragmented SEC(".maps");

#endif
