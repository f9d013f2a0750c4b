/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * What the programs use of the kernel's UAPI: the contexts as include/uapi/linux/bpf.h
 * has them, up to the last field in use, since the verifier goes by offsets.
 */
#ifndef DATAPATH_KERNEL_H
#define DATAPATH_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef _Bool bool;
enum {
	false = 0,
	true = 1,
};

typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __le16;
typedef __u32 __le32;
typedef __u64 __le64;
typedef __u16 __sum16;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_LRU_HASH = 9,
};

#define BPF_ANY			0
#define BPF_ADJ_ROOM_MAC	1
#define BPF_F_PSEUDO_HDR	(1ULL << 4)
#define BPF_F_MARK_MANGLED_0	(1ULL << 5)

/* include/uapi/linux/pkt_cls.h */
#define TC_ACT_OK	0
#define TC_ACT_SHOT	2

/* include/uapi/linux/if_ether.h, include/uapi/linux/in.h */
#define ETH_HLEN	14
#define ETH_P_IP	0x0800
#define ETH_P_IPV6	0x86DD
#define IPPROTO_ICMP	1
#define IPPROTO_TCP	6
#define IPPROTO_UDP	17
#define IPPROTO_ICMPV6	58

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port;
};

#endif
