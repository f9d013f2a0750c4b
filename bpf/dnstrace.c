//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
/*
 * DNS packets of a whole node from one attachment: every transmission and every
 * reception on every device of every network namespace, and every drop.
 *
 * program         hooks                       since   ns a DNS packet, another
 * net_dev_queue   tp_btf/net_dev_queue        5.5     840, 125
 * netif_receive   tp_btf/netif_receive_skb    5.5     460, 105
 * kfree_skb       tp_btf/kfree_skb            5.17    rare: as net_dev_queue
 * kfree_skb_old   tp_btf/kfree_skb            5.5     the same, without a reason
 *
 * Times are those of kernel.bpf_stats_enabled=1 on Linux 6.18, two virtual
 * cores, 1,000 lookups at 500 a second through a Service, and 1.2 GB of other
 * traffic over loopback; an empty program reads 47 to 65 there.
 *
 * BPF tracepoint programs may follow kernel pointers that BTF describes without
 * a helper call, which is what makes the common case, a packet that is not DNS,
 * cheap: two loads and one read of 64 bytes of header.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "dnstrace.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_PORTS	8
#define MAX_CPUS	256	/* counters are shared above that, rings are not */

/* Smallest DNS message: the header (RFC 1035, section 4.1.1). */
#define DNS_HEADER	12

/*
 * Payload bytes that follow an event. A ring reservation needs a constant size,
 * so there are three: a query and a short answer, most answers, a full one.
 * What is longer is cut: the question stands at the front.
 */
#define PAYLOAD_SMALL	128
#define PAYLOAD_MEDIUM	512
#define PAYLOAD_LARGE	2048

/* Ports to observe, host order; set before loading, 0 matches nothing. */
const volatile __u16 ports[MAX_PORTS];

/* In a section of its own, which user space maps into its memory. */
struct counters cpu_counters[MAX_CPUS] SEC(".data.counters");

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

/* bpf2go takes the layout of the event from here. */
const struct event *unused_event __attribute__((unused));

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags,
			       struct bpf_dynptr *ptr) __ksym __weak;

struct packet {
	__u8 *l3;		/* kernel address of the IP header */
	__u32 payload_off;	/* from l3 */
	__u16 payload_len;
	__u16 sport;
	__u16 dport;
	__u8 version;
	__u8 protocol;
	__u8 tcp_flags;
	__u32 seq;
	__u8 saddr[16];
	__u8 daddr[16];
};

static __always_inline bool is_dns_port(__u16 port)
{
	bool match = false;

	/* ports[] is frozen before loading: the verifier folds the loop away. */
#pragma unroll
	for (int i = 0; i < MAX_PORTS; i++)
		match |= ports[i] && port == ports[i];
	return match;
}

static __always_inline __u16 be16(const __u8 *p)
{
	return (__u16)p[0] << 8 | p[1];
}

static __always_inline void map_ipv4(__u8 *dst, const __u8 *src)
{
	__builtin_memset(dst, 0, 10);
	dst[10] = 0xff;
	dst[11] = 0xff;
	__builtin_memcpy(dst + 12, src, 4);
}

/*
 * Reads the headers at p->l3. False if this is no UDP or TCP packet with one of
 * our ports and, for UDP, room for a DNS header.
 */
static __always_inline bool parse(struct packet *p, __be16 ethertype)
{
	__u8 h[64];	/* an IPv4 header with all its options, and the ports */
	__u32 l4, total, l4_len;

	if (bpf_probe_read_kernel(h, sizeof(h), p->l3))
		return false;
	if (ethertype == bpf_htons(ETH_P_IP) && h[0] >> 4 == 4) {
		l4 = (h[0] & 0x0f) * 4;
		total = be16(h + 2);
		p->version = 4;
		p->protocol = h[9];
		/* A later fragment has no ports. */
		if (be16(h + 6) & 0x1fff)
			return false;
	} else if (ethertype == bpf_htons(ETH_P_IPV6) && h[0] >> 4 == 6) {
		l4 = 40;
		total = 40 + be16(h + 4);
		p->version = 6;
		p->protocol = h[6];
	} else {
		return false;
	}
	if (p->protocol != IPPROTO_UDP && p->protocol != IPPROTO_TCP)
		return false;
	if (l4 < 20)
		return false;
	l4 &= 60;	/* a multiple of 4, at most 60: says so to the verifier */
	p->sport = be16(h + l4);
	p->dport = be16(h + l4 + 2);
	if (!is_dns_port(p->sport) && !is_dns_port(p->dport))
		return false;

	l4_len = 8;
	p->seq = 0;
	p->tcp_flags = 0;
	if (p->protocol == IPPROTO_TCP) {
		__u8 tcp[20];

		if (bpf_probe_read_kernel(tcp, sizeof(tcp), p->l3 + l4))
			return false;
		p->seq = (__u32)be16(tcp + 4) << 16 | be16(tcp + 6);
		l4_len = (tcp[12] >> 4) * 4;
		p->tcp_flags = tcp[13];
		if (l4_len < 20)
			return false;
	}
	if (total < l4 + l4_len)
		return false;
	p->payload_off = l4 + l4_len;
	p->payload_len = total - l4 - l4_len;
	if (p->protocol == IPPROTO_UDP && p->payload_len < DNS_HEADER)
		return false;
	/* Of TCP, data and the SYN that starts a new stream; not bare ACKs. */
	if (p->protocol == IPPROTO_TCP && !p->payload_len && !(p->tcp_flags & 0x02))
		return false;

	if (p->version == 4) {
		map_ipv4(p->saddr, h + 12);
		map_ipv4(p->daddr, h + 16);
	} else {
		__builtin_memcpy(p->saddr, h + 8, 16);
		__builtin_memcpy(p->daddr, h + 24, 16);
	}
	return true;
}

static __always_inline void read_tuple(struct nat_tuple *dst,
				       struct nf_conntrack_tuple *src)
{
	__be16 port;

	BPF_CORE_READ_INTO(&dst->src, src, src.u3.all);
	BPF_CORE_READ_INTO(&dst->dst, src, dst.u3.all);
	BPF_CORE_READ_INTO(&port, src, src.u.all);
	dst->sport = bpf_ntohs(port);
	BPF_CORE_READ_INTO(&port, src, dst.u.all);
	dst->dport = bpf_ntohs(port);
}

/*
 * What connection tracking knows of the packet: readable at the bridge and on
 * every way out of the node, not inside the pod.
 */
static __always_inline void read_conntrack(struct event *e, unsigned long nfct)
{
	struct nf_conn *ct = (void *)(nfct & NFCT_PTRMASK);

	e->ct_status = 0;
	if (!ct || !bpf_core_type_exists(struct nf_conn))
		return;
	e->ct_status = BPF_CORE_READ(ct, status);
	if (!(e->ct_status & IPS_NAT_MASK))
		return;
	read_tuple(&e->orig, &ct->tuplehash[0].tuple);
	read_tuple(&e->reply, &ct->tuplehash[1].tuple);
}

/*
 * The process that sends: the one on the CPU, if the file that its system call
 * was given is the packet's socket. Anything less would name whom a softirq
 * happened to interrupt.
 */
static __always_inline void read_process(struct event *e, struct sock *sk)
{
	struct task_struct *task;
	struct fdtable *fdt;
	struct file **files, *file;
	struct socket *sock;
	unsigned long fd;
	struct pt_regs *regs;

	e->tgid = 0;
	e->comm[0] = 0;
	if (!sk || !bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return;
	task = bpf_get_current_task_btf();
	fdt = BPF_CORE_READ(task, files, fdt);
	if (!fdt)		/* a kernel thread */
		return;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	fd = BPF_CORE_READ(regs, di);
	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return;
	files = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), files + fd) || !file)
		return;
	sock = BPF_CORE_READ(file, private_data);
	if (!sock || BPF_CORE_READ(sock, sk) != sk)
		return;
	e->tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static __always_inline void read_payload(void *dst, __u32 room, struct event *e,
					 struct sk_buff *skb, struct packet *p)
{
	__u32 want = p->payload_len < room ? p->payload_len : room;
	__u32 linear = skb->len - skb->data_len;
	__s64 off = (p->l3 - skb->data) + p->payload_off;
	struct bpf_dynptr ptr;

	e->captured = 0;
	if (!want)
		return;
	/* The bound that the verifier lost. */
	if (want > room)
		return;
	if (off + want <= linear) {
		if (!bpf_probe_read_kernel(dst, want, p->l3 + p->payload_off))
			e->captured = want;
		return;
	}
	/* Paged data, as TCP on a veth always is: since Linux 6.12. */
	if (!bpf_dynptr_from_skb || off < 0)
		return;
	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &ptr))
		return;
	if (!bpf_dynptr_read(dst, want, &ptr, off, 0))
		e->captured = want;
}

static __always_inline void fill(struct event *e, struct sk_buff *skb, struct packet *p,
				 __u8 kind)
{
	struct net_device *dev = skb->dev;
	struct sock *sk = skb->sk;

	e->time = bpf_ktime_get_ns();
	e->skb = (__u64)skb;
	e->location = 0;
	e->reason = 0;
	e->seq = p->seq;
	e->sport = p->sport;
	e->dport = p->dport;
	e->payload_len = p->payload_len;
	e->kind = kind;
	e->ip_version = p->version;
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
	e->pad = 0;
	__builtin_memcpy(e->saddr, p->saddr, 16);
	__builtin_memcpy(e->daddr, p->daddr, 16);
	e->netns = 0;
	e->ifindex = 0;
	e->ifname[0] = 0;
	if (dev) {
		e->ifindex = dev->ifindex;
		e->netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
		BPF_CORE_READ_INTO(&e->ifname, dev, name);
	} else if (sk) {
		/* A packet dropped on its way out has no device yet. */
		e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	}
	read_conntrack(e, skb->_nfct);
	if (kind == EVENT_RX) {
		e->tgid = 0;
		e->comm[0] = 0;
	} else {
		read_process(e, sk);
	}
}

struct event_small {
	struct event e;
	__u8 payload[PAYLOAD_SMALL];
};

struct event_medium {
	struct event e;
	__u8 payload[PAYLOAD_MEDIUM];
};

struct event_large {
	struct event e;
	__u8 payload[PAYLOAD_LARGE];
};

/*
 * A wakeup costs ten times what the event does, so there is none: user space
 * polls. A drop is rare and waits for the poll too.
 */
#define EMIT(type) do {							\
	struct type *s = bpf_ringbuf_reserve(ring, sizeof(*s), 0);	\
									\
	if (!s) {							\
		__sync_fetch_and_add(&count->lost, 1);			\
		return;							\
	}								\
	fill(&s->e, skb, p, kind);					\
	s->e.location = location;					\
	s->e.reason = reason;						\
	read_payload(s->payload, sizeof(s->payload), &s->e, skb, p);	\
	bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);			\
} while (0)

static __always_inline void emit(struct sk_buff *skb, struct packet *p, __u8 kind,
				 __u64 location, __u32 reason)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct counters *count = &cpu_counters[cpu & (MAX_CPUS - 1)];
	void *ring = bpf_map_lookup_elem(&rings, &cpu);

	if (!ring)
		return;
	if (p->payload_len <= PAYLOAD_SMALL)
		EMIT(event_small);
	else if (p->payload_len <= PAYLOAD_MEDIUM)
		EMIT(event_medium);
	else
		EMIT(event_large);
	__sync_fetch_and_add(&count->emitted, 1);
}

/* Every transmission on every device. Costs one header read for other packets. */
SEC("tp_btf/net_dev_queue")
int BPF_PROG(net_dev_queue, struct sk_buff *skb)
{
	struct packet p = { .l3 = skb->head + skb->network_header };

	if (parse(&p, skb->protocol))
		emit(skb, &p, EVENT_TX, 0, 0);
	return 0;
}

/*
 * Every reception on every device. The network header is not set yet: the IP
 * header starts at skb->data.
 */
SEC("tp_btf/netif_receive_skb")
int BPF_PROG(netif_receive, struct sk_buff *skb)
{
	struct packet p = { .l3 = skb->data };

	if (parse(&p, skb->protocol))
		emit(skb, &p, EVENT_RX, 0, 0);
	return 0;
}

/* Every packet that is freed because something is wrong with it; rare. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb, struct sk_buff *skb, void *location, int reason)
{
	struct packet p = { .l3 = skb->head + skb->network_header };

	if (parse(&p, skb->protocol))
		emit(skb, &p, EVENT_DROP, (__u64)location, reason);
	return 0;
}

/* The same before Linux 5.17, where the kernel does not say why. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb_old, struct sk_buff *skb, void *location)
{
	struct packet p = { .l3 = skb->head + skb->network_header };

	if (parse(&p, skb->protocol))
		emit(skb, &p, EVENT_DROP, (__u64)location, 0);
	return 0;
}
