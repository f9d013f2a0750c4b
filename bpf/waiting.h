/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Packets that wait for the link address of their next hop. If nobody has it, a timer of
 * the kernel drops them some seconds later: when they were sent, and by whom, is known
 * only here, where they begin to wait.
 */
#ifndef DNSTRACE_WAITING_H
#define DNSTRACE_WAITING_H

struct waiting {
	struct waited sent;
	__u32 ports;		/* as ports_of(): a packet that was sent leaves its entry to the next in its buffer */
	__u32 pad;
};

/* By the address of their buffer. The oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct waiting);
} waiting SEC(".maps");

/* The first bytes behind the IP header. */
static __always_inline __u32 ports_of(const struct sk_buff *skb)
{
	return load32(skb->head + skb->transport_header);
}

/* Takes what is known of a packet that waited out of the map; false: it did not. */
static __always_inline bool take_waiting(struct waited *sent, const struct sk_buff *skb)
{
	__u64 key = (__u64)skb;
	struct waiting *w = bpf_map_lookup_elem(&waiting, &key);

	if (!w || w->ports != ports_of(skb))
		return false;
	*sent = w->sent;
	bpf_map_delete_elem(&waiting, &key);
	return true;
}

/*
 * A packet was given to a neighbour that has no link address yet: rc is not 0. It stands
 * last in the neighbour's queue, unless another CPU was faster. The pointers are followed
 * without a reference, so that a wrong one reads as no DNS.
 */
SEC("tp_btf/neigh_event_send_done")
int BPF_PROG(neigh_event_send_done, struct neighbour *neigh, int rc)
{
	struct waiting w = {};
	struct sk_buff *skb;
	struct sock *sk;
	struct task_struct *task;
	__u64 key;

	if (!rc)
		return 0;
	skb = neigh->arp_queue.prev;
	if (!skb || (void *)skb == (void *)&neigh->arp_queue)
		return 0;
	sk = skb->sk;
	if (!prefilter(skb, skb->head + skb->network_header, skb->dev, sk))
		return 0;
	w.sent.time = bpf_ktime_get_ns();
	w.ports = ports_of(skb);
	if (sk && (task = sending_task(sk))) {
		read_task(&w.sent.who, task);
		if (task->pid != task->tgid)
			read_thread(&w.sent.thread, task);
	}
	key = (__u64)skb;
	bpf_map_update_elem(&waiting, &key, &w, BPF_ANY);
	return 0;
}

#endif
