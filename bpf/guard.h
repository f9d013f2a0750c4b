/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * What becomes of events, counted, and the guard of the memory in which they are put
 * together.
 *
 * Since Linux 6.1 the kernel leaves a program out that is running on that CPU already,
 * and counts it. Before, a softirq may run it within itself: the inner run finds the
 * scratch in use, leaves it as it is, and its event is counted as lost. Where a program
 * may be preempted (PREEMPT_RT), the same holds for another that uses the same scratch.
 */
#ifndef DNSTRACE_GUARD_H
#define DNSTRACE_GUARD_H

static __always_inline void count_lost(struct counters *count, __u32 kind, __u64 time)
{
	__sync_fetch_and_add(&count->lost[kind & 7], 1);
	count->last_lost = time;
}

/* The scratch of a slot, for an event of a kind, until leave(); 0 if it is in use. */
static __always_inline struct scratch *enter(__u32 slot, __u32 kind)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	volatile __u32 *busy;

	if (!s)
		return 0;
	/* No other CPU uses it, and what interrupts this one ends before it goes on. */
	busy = &s->busy;
	if (*busy) {
		count_lost(counters(bpf_get_smp_processor_id()), kind, bpf_ktime_get_ns());
		return 0;
	}
	*busy = 1;
	return s;
}

static __always_inline void leave(struct scratch *s)
{
	*(volatile __u32 *)&s->busy = 0;
}

#endif
