/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Payload in pages: that of TCP on virtual devices and loopback always is, that of
 * any packet may be where a card received it.
 *
 * Since Linux 6.12 the programs read it where it is (bpf_dynptr_from_skb). Before,
 * the kernel puts it behind the event itself (bpf_skb_output, since 5.5), into a perf
 * buffer a CPU; user space puts its events and those of the rings in order of time.
 * That costs 20 to 40 ns a segment more, which is within the spread: 577 on the way
 * out and 495 in, medians of four runs of 20,000 segments of 300 bytes each way over
 * loopback, beside 556 and 455 (Linux 6.18, two processors that were not idle).
 *
 * The programs could also find a page's address and read it, without perf buffers.
 * That takes vmemmap_base and page_offset_base out of /proc/kallsyms, thus CAP_SYSLOG
 * and CONFIG_KALLSYMS_ALL, which not every kernel has, and arithmetic that is another
 * on each architecture and that no kernel promises. What bpf_skb_output takes, and
 * Debian gives to CAP_SYS_ADMIN only, is perf_event_open; `check` says so.
 */
#ifndef DNSTRACE_PAGED_H
#define DNSTRACE_PAGED_H

/*
 * Whether tracing programs may call bpf_dynptr_from_skb: since 6.12. It exists
 * since 6.4, so its presence does not tell; set before loading.
 */
const volatile bool read_paged;

/* Otherwise: whether user space has made the perf buffers; set before loading. */
const volatile bool output_paged;

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags,
			       struct bpf_dynptr *ptr) __ksym __weak;

/* Room for one buffer a possible CPU: user space fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} paged_events SEC(".maps");

/*
 * Reads the payload into the tail and returns how many bytes of it, 0 where it is out
 * of reach; or leaves it to send_paged, and says so in s->paged.
 */
static __always_inline __u32 read_payload(struct scratch *s, struct sk_buff *skb, struct bpf_dynptr *ptr)
{
	__u64 off = s->at - *(volatile __u64 *)&s->start;
	__u64 len = skb->len, want = s->left;
	bool paged;

	if (off >= len)
		return 0;
	/* An ICMP error may quote less than there was. */
	if (want > len - off)
		want = len - off;
	if (want > MAX_PAYLOAD)
		want = MAX_PAYLOAD;
	paged = s->at + want > s->end;
	if (paged && !(read_paged && bpf_dynptr_from_skb)) {
		if (output_paged) {
			s->paged = want;
			s->before = off;
			return 0;
		}
		/* The front of it has to do. */
		if (s->at >= s->end)
			return 0;
		want = s->end - s->at;
		paged = false;
	}
	/* Makes the compiler check again what the verifier must see checked. */
	barrier_var(want);
	if (!want || want > MAX_PAYLOAD)
		return 0;
	if (!paged)
		return bpf_probe_read_kernel(s->tail, want, (void *)s->at) ? 0 : want;
	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, ptr))
		return 0;
	return bpf_dynptr_read(s->tail, want, ptr, off, 0) ? 0 : want;
}

/*
 * Sends the event with as much of the packet behind it as the payload reaches. That
 * begins before the payload, with at most twelve headers of 2 KiB (MAX_HEADERS), so
 * that 16 bits hold where it is.
 */
static __always_inline long send_paged(struct scratch *s, struct sk_buff *skb, __u64 used)
{
	__u64 copied = s->before + s->paged;

	s->e.captured = s->paged;
	s->e.skip = used + s->before;
	return bpf_skb_output(skb, &paged_events, BPF_F_CURRENT_CPU | copied << 32, s, sizeof(s->e) + used);
}

#endif
