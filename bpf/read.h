/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Reading kernel memory that BTF gives no type: packet headers, connection
 * tracking. Since Linux 6.2 bpf_rdonly_cast makes that a load; before, it takes a
 * helper call, however few the bytes.
 */
#ifndef DNSTRACE_READ_H
#define DNSTRACE_READ_H

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/*
 * Reads n bytes, a multiple of 4 known to the compiler. What cannot be read is
 * zero.
 */
static __always_inline void load(void *dst, __u32 n, const void *src)
{
	if (!bpf_rdonly_cast) {
		if (bpf_probe_read_kernel(dst, n, src))
			__builtin_memset(dst, 0, n);
		return;
	}
#pragma unroll
	for (__u32 i = 0; i < n / 4; i++) {
		const struct in6_addr *a = bpf_rdonly_cast(src + 4 * i, bpf_core_type_id_kernel(struct in6_addr));

		((__u32 *)dst)[i] = a->in6_u.u6_addr32[0];
	}
}

static __always_inline __u32 load32(const void *src)
{
	__u32 v;

	load(&v, sizeof(v), src);
	return v;
}

static __always_inline __u64 load64(const void *src)
{
	__u64 v;

	load(&v, sizeof(v), src);
	return v;
}

/* Network order to host order. */
static __always_inline __u16 be16(const __u8 *p)
{
	return (__u16)p[0] << 8 | p[1];
}

static __always_inline __u32 be32(const __u8 *p)
{
	return (__u32)be16(p) << 16 | be16(p + 2);
}

#endif
