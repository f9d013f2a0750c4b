//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
/*
 * DNS packets of a whole node from one attachment: every transmission and every
 * reception on every device of every network namespace, and every drop.
 *
 * program         hooks                       since   ns a DNS packet, another
 * net_dev_queue   tp_btf/net_dev_queue        5.5     660, 105
 * netif_receive   tp_btf/netif_receive_skb    5.5     385, 95
 * kfree_skb       tp_btf/kfree_skb            5.17    rare: as net_dev_queue
 * kfree_skb_old   tp_btf/kfree_skb            5.5     the same, without a reason
 *
 * Times are those of kernel.bpf_stats_enabled=1 on Linux 6.18, two virtual
 * cores, at 10,000 lookups a second and with 1.2 GB of other traffic over
 * loopback; an empty program reads 47 to 65 there. Of a DNS packet some 100 are
 * the ring, 110 the proof of the sending process, 150 the headers.
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
 * Payload bytes that follow an event. What is longer is cut: the question stands
 * at the front.
 */
#define MAX_PAYLOAD	2048

/* Ports to observe, host order; set before loading, 0 matches nothing. */
const volatile __u16 ports[MAX_PORTS];

/*
 * Whether tracing programs may call bpf_dynptr_from_skb: since 6.12. It exists
 * since 6.4, so its presence does not tell; set before loading.
 */
const volatile bool read_paged;

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

/* Where an event is put together before it is copied to its ring. */
struct scratch {
	struct event e;
	__u8 tail[MAX_PAYLOAD + sizeof(struct sender) + sizeof(struct nat) + sizeof(struct drop)];
};

/*
 * One a CPU and kind: a drop in a system call may be interrupted by a packet.
 * The kernel does not run a program within itself.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* bpf2go takes the layouts from here. */
const struct event *unused_event __attribute__((unused));
const struct sender *unused_sender __attribute__((unused));
const struct nat *unused_nat __attribute__((unused));
const struct drop *unused_drop __attribute__((unused));

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
	if (!is_dns_port(p->sport, p->dport))
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

#define TUPLE_BYTES	40	/* sizeof(struct nf_conntrack_tuple) since 2.6 */

/* One read of the whole tuple: a read of each of its fields costs four. */
static __always_inline void read_tuple(struct nat_tuple *dst,
				       const struct nf_conntrack_tuple *src)
{
	__u8 t[TUPLE_BYTES];

	if (bpf_probe_read_kernel(t, sizeof(t), src))
		__builtin_memset(t, 0, sizeof(t));
	__builtin_memcpy(dst->src, t + bpf_core_field_offset(src->src.u3.all), 16);
	__builtin_memcpy(dst->dst, t + bpf_core_field_offset(src->dst.u3.all), 16);
	dst->sport = be16(t + bpf_core_field_offset(src->src.u.all));
	dst->dport = be16(t + bpf_core_field_offset(src->dst.u.all));
}

/*
 * What connection tracking knows of the packet: readable at the bridge and on
 * every way out of the node, not inside the pod. False if nothing is translated.
 */
static __always_inline bool read_nat(struct nat *nat, unsigned long nfct)
{
	struct nf_conn *ct = (void *)(nfct & NFCT_PTRMASK);

	if (!ct || !bpf_core_type_exists(struct nf_conn))
		return false;
	if (!(BPF_CORE_READ(ct, status) & IPS_NAT_MASK))
		return false;
	read_tuple(&nat->orig, &ct->tuplehash[0].tuple);
	read_tuple(&nat->reply, &ct->tuplehash[1].tuple);
	return true;
}

/*
 * The process that sends: the one on the CPU, if the file that its system call
 * was given is the packet's socket. Anything less would name whom a softirq
 * happened to interrupt.
 */
static __always_inline bool read_sender(struct sender *s, struct sock *sk)
{
	struct task_struct *task;
	struct files_struct *open_files;
	struct fdtable *fdt;
	struct file *file;
	struct socket *sock;
	unsigned long fd;
	struct pt_regs *regs;

	if (!sk || !bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return false;
	task = bpf_get_current_task_btf();
	open_files = task->files;
	if (!open_files)		/* a kernel thread */
		return false;
	fdt = open_files->fdt;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	fd = regs->di;
	if (fd >= fdt->max_fds)
		return false;
	if (bpf_probe_read_kernel(&file, sizeof(file), fdt->fd + fd) || !file)
		return false;
	sock = BPF_CORE_READ(file, private_data);
	if (!sock || BPF_CORE_READ(sock, sk) != sk)
		return false;
	s->tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(s->comm, sizeof(s->comm));
	return true;
}

/* Returns how many bytes were read, 0 if the payload is out of reach. */
static __always_inline __u32 read_payload(__u8 *dst, struct sk_buff *skb, struct packet *p,
					  struct bpf_dynptr *ptr)
{
	__u32 want = p->payload_len < MAX_PAYLOAD ? p->payload_len : MAX_PAYLOAD;
	__u32 linear = skb->len - skb->data_len;
	__s64 off = (p->l3 - skb->data) + p->payload_off;

	/* Makes the compiler check again what the verifier must see checked. */
	barrier_var(want);
	if (!want || want > MAX_PAYLOAD)
		return 0;
	if (off + want <= linear) {
		if (bpf_probe_read_kernel(dst, want, p->l3 + p->payload_off))
			return 0;
		return want;
	}
	/* Paged data, as TCP on a veth always is: since Linux 6.12. */
	if (!read_paged || !bpf_dynptr_from_skb || off < 0)
		return 0;
	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, ptr))
		return 0;
	if (bpf_dynptr_read(dst, want, ptr, off, 0))
		return 0;
	return want;
}

static __always_inline void fill(struct event *e, struct sk_buff *skb, struct packet *p,
				 __u8 kind)
{
	struct net_device *dev = skb->dev;
	struct sock *sk = skb->sk;

	e->time = bpf_ktime_get_ns();
	e->skb = (__u64)skb;
	e->seq = p->seq;
	e->sport = p->sport;
	e->dport = p->dport;
	e->payload_len = p->payload_len;
	e->kind = kind;
	e->ip_version = p->version;
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
	e->parts = 0;
	__builtin_memcpy(e->saddr, p->saddr, 16);
	__builtin_memcpy(e->daddr, p->daddr, 16);
	e->netns = 0;
	e->ifindex = 0;
	e->ifname[0] = 0;
	if (dev) {
		e->ifindex = dev->ifindex;
		e->netns = dev->nd_net.net->ns.inum;
		BPF_CORE_READ_INTO(&e->ifname, dev, name);
	} else if (sk) {
		/* A packet dropped on its way out has no device yet. */
		e->netns = sk->__sk_common.skc_net.net->ns.inum;
	}
}

/*
 * A wakeup costs ten times what the event does, so there is none: user space
 * polls. A drop is rare and waits for the poll too.
 */
static __always_inline void emit(struct sk_buff *skb, struct packet *p, __u32 kind,
				 __u64 location, __u32 reason)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct counters *count = &cpu_counters[cpu & (MAX_CPUS - 1)];
	void *ring = bpf_map_lookup_elem(&rings, &cpu);
	struct scratch *s = bpf_map_lookup_elem(&scratches, &kind);
	/* Here, so that it keeps its place on the stack: Linux 7.2 wants that. */
	struct bpf_dynptr ptr;
	__u32 end;

	if (!ring || !s)
		return;
	fill(&s->e, skb, p, kind);
	end = read_payload(s->tail, skb, p, &ptr);
	s->e.captured = end;
	barrier_var(end);
	if (end > MAX_PAYLOAD)
		return;
	if (kind != EVENT_RX && read_sender((struct sender *)(s->tail + end), skb->sk)) {
		s->e.parts |= PART_PROCESS;
		end += sizeof(struct sender);
	}
	if (read_nat((struct nat *)(s->tail + end), skb->_nfct)) {
		s->e.parts |= PART_NAT;
		end += sizeof(struct nat);
	}
	if (kind == EVENT_DROP) {
		struct drop d = { .location = location, .reason = reason };

		__builtin_memcpy(s->tail + end, &d, sizeof(d));
		s->e.parts |= PART_DROP;
		end += sizeof(d);
	}
	if (bpf_ringbuf_output(ring, s, sizeof(s->e) + end, BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&count->lost, 1);
	else
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
