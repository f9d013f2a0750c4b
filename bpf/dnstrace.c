//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
/*
 * DNS packets of a whole node from one attachment: every transmission and every
 * reception on every device of every network namespace, every drop, and every arrival
 * at and reading from a socket.
 *
 * program           hooks                     since   ns a DNS packet, another
 * net_dev_queue     tp_btf/net_dev_queue      5.5     305-395 (204), 40-43 (11)
 * netif_receive     tp_btf/netif_receive_skb  5.5     215-280 (156), 41-49 (9)
 * kfree_skb         tp_btf/kfree_skb          5.17    a drop: (1000-2800), another (11-30)
 * kfree_skb_old     tp_btf/kfree_skb          5.5     the same, without a reason
 * neigh_event_send_done  tp_btf of that name  5.5     where a link address is unknown: rare (waiting.h)
 * cgroup_ingress    cgroup_skb/ingress        5.10    250-260, (3-7)
 * sk_data_ready     tp_btf/sk_data_ready      6.3     235-245
 * tcp_probe         tp_btf/tcp_probe          4.16
 * sock_recv_length  tp_btf/sock_recv_length   6.3     240-250, (0-19); 400-600 where it looks
 *                                                     at what the reader got
 *
 * Of the last four socket.h has what they are for. cgroup_ingress takes the place of
 * sk_data_ready and tcp_probe where it may be attached.
 *
 * They read the headers of the packet (prefilter.h, headers.h, transport.h), its
 * device, socket and connection tracking entry, and the task that sends.
 * Where not every lookup is reported, the packets of the others are left out before they
 * are parsed (sampling.h).
 * Where only some namespaces are observed, a packet of another one that may be
 * DNS costs a look at its header and as many comparisons (netns.h).
 *
 * Times are those of kernel.bpf_stats_enabled=1 on Linux 6.18, two virtual
 * cores, at 10,000 lookups a second of CoreDNS and with 1.2 GB of other traffic
 * over loopback, an empty program's 30 among them; in brackets, what is above
 * that in a loop of one process that sends and receives. There, of a DNS packet
 * on its way out 45 are the ring, 33 the proof of the sending process, 30 the
 * headers, 25 the payload, 16 the cgroup. Before Linux 6.2, where a look at a
 * header is a call, another packet takes 11 to 25, a DNS packet 15 to 35 more.
 *
 * BPF tracepoint programs may follow kernel pointers that BTF describes without
 * a helper call, which is what makes the common case, a packet that is not DNS,
 * cheap: a look at a dozen bytes of header (prefilter.h). Where such a pointer leads
 * nowhere, the load is zero. Before Linux 6.5, and in 5.10 to this day, the kernel does
 * not survive that in a program that calls functions of its own (it looks for the fixup in
 * a table that is not there: "bpf: ensure main program has an extable"), so all functions
 * here are inlined.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "dnstrace.h"
#include "read.h"
#include "state.h"
#include "guard.h"
#include "conntrack.h"
#include "sender.h"
#include "headers.h"
#include "servers.h"
#include "transport.h"
#include "netns.h"
#include "sampling.h"
#include "prefilter.h"
#include "paged.h"
#include "waiting.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
};

/* One ring a CPU: a shared one cost 2.5 times as much at saturation. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);		/* set to the number of CPUs before loading */
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* bpf2go takes the layouts from here. */
const struct event *unused_event __attribute__((unused));
const struct sender *unused_sender __attribute__((unused));
const struct thread *unused_thread __attribute__((unused));
const struct nat *unused_nat __attribute__((unused));
const struct drop *unused_drop __attribute__((unused));
const struct waited *unused_waited __attribute__((unused));
const struct outer *unused_outer __attribute__((unused));
const struct fragment *unused_fragment __attribute__((unused));
const struct icmp_error *unused_icmp_error __attribute__((unused));

/* Where the packet is. */
static __always_inline void locate(struct event *e, struct net_device *dev, __u32 netns)
{
	e->netns = netns;
	e->ifindex = 0;
	e->ifname[0] = 0;
	if (dev) {
		e->ifindex = dev->ifindex;
		__builtin_memcpy(e->ifname, dev->name, sizeof(e->ifname));
	}
}

/* Room for a part behind what is there; the verifier sees the bound. */
static __always_inline void *append(struct scratch *s, __u32 size, __u16 part)
{
	__u64 used = s->used;

	barrier_var(used);
	if (used > MAX_PAYLOAD + MAX_PARTS - size)
		return 0;
	s->used = used + size;
	s->e.parts |= part;
	return s->tail + used;
}

static __always_inline void append_task(struct scratch *s, struct task_struct *task)
{
	struct sender *who = append(s, sizeof(*who), PART_PROCESS);
	struct thread *thread;

	if (!who)
		return;
	read_task(who, task);
	if (task->pid == task->tgid)
		return;
	thread = append(s, sizeof(*thread), PART_THREAD);
	if (!thread)
		return;
	read_thread(thread, task);
}

/*
 * Only where the packet leaves the socket's own namespace's devices: a packet
 * keeps its socket until it is received, and what the first sighting proved need
 * not be proven again.
 */
static __always_inline void append_sender(struct scratch *s, struct net_device *dev, struct sock *sk)
{
	struct task_struct *task;
	__u64 cgroup, *id;

	if (!sk || (dev && dev->nd_net.net != sk->__sk_common.skc_net.net))
		return;
	task = sending_task(sk);
	if (task)
		append_task(s, task);
	cgroup = read_cgroup(sk);
	if (!cgroup)
		return;
	id = append(s, sizeof(*id), PART_CGROUP);
	if (id)
		__builtin_memcpy(id, &cgroup, sizeof(*id));
}

static __always_inline void append_nat(struct scratch *s, unsigned long nfct)
{
	struct nat *nat;

	if (!(nfct & NFCT_PTRMASK) || s->e.parts & PART_OUTER)
		return;
	nat = append(s, sizeof(*nat), PART_NAT);
	if (nat && !read_nat(nat, nfct)) {
		s->used -= sizeof(*nat);
		s->e.parts &= ~PART_NAT;
	}
}

/*
 * The callers tell at which hook a packet was dropped. One microsecond or two, which
 * a drop is worth.
 */
static __always_inline void append_drop(struct scratch *s, void *ctx, struct sk_buff *skb,
					__u64 location, __u32 reason)
{
	struct net_device *dev = device_of_dropped(skb);
	struct sock *sk = skb->sk;
	struct nf_conn *ct = tracked(skb->_nfct);
	struct drop *d = append(s, sizeof(*d), PART_DROP);

	if (!d)
		return;
	__builtin_memset(d, 0, sizeof(*d));
	d->location = location;
	d->reason = reason;
	d->other_host = BPF_CORE_READ_BITFIELD(skb, pkt_type) == PACKET_OTHERHOST;
	if (ct) {
		d->ct_known = 1;
		d->ct_status = ct_status(ct);
	} else if (!skb->_nfct) {	/* not 0: exempt from tracking */
		read_table(d, dev, sk);
	}
	bpf_get_stack(ctx, d->callers, sizeof(d->callers), 0);
}

static __always_inline void append_waited(struct scratch *s, const struct sk_buff *skb)
{
	struct waited *w = append(s, sizeof(*w), PART_WAITED);

	if (w && !take_waiting(w, skb)) {
		s->used -= sizeof(*w);
		s->e.parts &= ~PART_WAITED;
	}
}

/* What the parser found around the packet. */
static __always_inline void append_rest(struct scratch *s, __u16 parts)
{
	void *part;

	if (parts & PART_OUTER && (part = append(s, sizeof(s->outer), PART_OUTER)))
		__builtin_memcpy(part, &s->outer, sizeof(s->outer));
	if (parts & PART_FRAGMENT && (part = append(s, sizeof(s->fragment), PART_FRAGMENT)))
		__builtin_memcpy(part, &s->fragment, sizeof(s->fragment));
	if (parts & PART_ICMP && (part = append(s, sizeof(s->icmp), PART_ICMP)))
		__builtin_memcpy(part, &s->icmp, sizeof(s->icmp));
}

/*
 * A wakeup costs ten times what the event does, so there is none: user space
 * polls. A drop is rare and waits for the poll too.
 */
static __always_inline void send(struct scratch *s, struct sk_buff *skb, __u32 kind)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct counters *count = counters(cpu);
	void *ring = bpf_map_lookup_elem(&rings, &cpu);
	__u64 used = s->used;
	long refused;

	barrier_var(used);
	if (!ring || used > MAX_PAYLOAD + MAX_PARTS)
		return;
	if (skb && output_paged && s->paged)
		refused = send_paged(s, skb, used);
	else
		refused = bpf_ringbuf_output(ring, s, sizeof(s->e) + used, BPF_RB_NO_WAKEUP);
	if (refused)
		count_lost(count, kind, s->e.time);
	else
		__sync_fetch_and_add(&count->emitted, 1);
}

static __always_inline void report(void *ctx, struct scratch *s, struct sk_buff *skb, const __u8 *l3, __u32 kind,
				   __u64 location, __u32 reason)
{
	struct net_device *dev = kind == EVENT_DROP ? device_of_dropped(skb) : skb->dev;
	struct sock *sk = skb->sk;
	/* Here, so that it keeps its place on the stack: Linux 7.2 wants that. */
	struct bpf_dynptr ptr;
	__u32 netns = netns_of(dev, sk), captured;

	if (!is_observed(netns) || !parse(s, skb, l3))
		return;
	s->e.time = bpf_ktime_get_ns();
	s->e.skb = (__u64)skb;
	s->e.kind = kind;
	locate(&s->e, dev, netns);
	captured = 0;
	s->paged = 0;
	s->e.payload_len = 0;
	if (!(s->e.parts & PART_FRAGMENT) || !s->fragment.offset) {
		s->e.payload_len = s->left;
		captured = read_payload(s, skb, &ptr);
	}
	if (!is_chosen(s, skb->_nfct, captured))
		return;
	s->e.captured = captured;
	s->e.skip = 0;
	s->used = captured;
	if (kind != EVENT_RX)
		append_sender(s, dev, sk);
	append_nat(s, skb->_nfct);
	if (kind == EVENT_DROP) {
		append_drop(s, ctx, skb, location, reason);
		append_waited(s, skb);
	}
	if (s->e.parts & (PART_OUTER | PART_FRAGMENT | PART_ICMP))
		append_rest(s, s->e.parts);
	send(s, skb, kind);
}

static __always_inline void emit(void *ctx, struct sk_buff *skb, const __u8 *l3, __u32 kind,
				 __u64 location, __u32 reason)
{
	struct scratch *s = enter(kind, kind);

	if (!s)
		return;
	report(ctx, s, skb, l3, kind, location, reason);
	leave(s);
}

#include "socket.h"

/*
 * On the way out the network header is known, but with a tag in the packet it may
 * be before or behind it: then count from the Ethernet header.
 */
static __always_inline const __u8 *outgoing(struct sk_buff *skb)
{
	__u16 mac = skb->mac_header;

	if ((skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD)) &&
	    mac != (__u16)~0)
		return skb->head + mac + ETH_HLEN;
	return skb->head + skb->network_header;
}

/* Every transmission on every device. Costs one header read for other packets. */
SEC("tp_btf/net_dev_queue")
int BPF_PROG(net_dev_queue, struct sk_buff *skb)
{
	const __u8 *l3 = outgoing(skb);

	if (prefilter(skb, l3, skb->dev, skb->sk))
		emit(ctx, skb, l3, EVENT_TX, 0, 0);
	return 0;
}

/*
 * Every reception on every device. The network header is not set yet: the header
 * behind Ethernet's starts at skb->data.
 */
SEC("tp_btf/netif_receive_skb")
int BPF_PROG(netif_receive, struct sk_buff *skb)
{
	const __u8 *l3 = skb->data;

	if (prefilter(skb, l3, skb->dev, skb->sk))
		emit(ctx, skb, l3, EVENT_RX, 0, 0);
	return 0;
}

/* Every packet that is freed because something is wrong with it; rare. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb, struct sk_buff *skb, void *location, int reason)
{
	const __u8 *l3 = outgoing(skb);

	if (prefilter(skb, l3, device_of_dropped(skb), skb->sk))
		emit(ctx, skb, l3, EVENT_DROP, (__u64)location, reason);
	return 0;
}

/* The same before Linux 5.17, where the kernel does not say why. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb_old, struct sk_buff *skb, void *location)
{
	const __u8 *l3 = outgoing(skb);

	if (prefilter(skb, l3, device_of_dropped(skb), skb->sk))
		emit(ctx, skb, l3, EVENT_DROP, (__u64)location, 0);
	return 0;
}
