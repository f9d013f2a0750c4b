/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * The kernel types that the programs read, each with the fields that they read
 * and no more. The loader finds the real offsets in the running kernel's BTF
 * (CO-RE), so nothing here has to match the order or size of the kernel's own
 * definition; a full vmlinux.h would be 100,000 lines of which this is used.
 */
#ifndef DNSTRACE_KERNEL_H
#define DNSTRACE_KERNEL_H

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

/* include/uapi/linux/bpf.h */
enum bpf_map_type {
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_RB_NO_WAKEUP = 1,
};

#define BPF_F_CURRENT_CPU	0xffffffffULL

enum bpf_func_id {
	BPF_FUNC_task_pt_regs = 175,	/* since Linux 5.15 */
};

/* include/uapi/linux/if_ether.h, include/uapi/linux/in.h */
#define ETH_P_IP	0x0800
#define ETH_HLEN	14
#define ETH_P_IPV6	0x86DD
#define ETH_P_8021Q	0x8100
#define ETH_P_8021AD	0x88A8
#define ETH_P_TEB	0x6558		/* Ethernet inside a tunnel */
#define IPPROTO_HOPOPTS	0
#define IPPROTO_ICMP	1
#define IPPROTO_IPIP	4		/* IPv4 inside IP */
#define IPPROTO_TCP	6
#define IPPROTO_UDP	17
#define IPPROTO_IPV6	41		/* IPv6 inside IP */
#define IPPROTO_ROUTING	43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_GRE	47
#define IPPROTO_ICMPV6	58
#define IPPROTO_DSTOPTS	60

/* include/uapi/linux/if_packet.h */
#define PACKET_OTHERHOST	3

/* include/net/tcp_states.h: sockets that are not whole */
#define TCP_TIME_WAIT	6
#define TCP_NEW_SYN_RECV 12

/* include/linux/socket.h */
#define AF_INET		2
#define AF_INET6	10
#define MSG_PEEK	0x2
#define MSG_ERRQUEUE	0x2000

#define IFNAMSIZ	16

/* include/uapi/linux/netfilter/nf_conntrack_common.h */
#define IPS_NAT_MASK	((1 << 4) | (1 << 5))	/* source, destination */

/* include/linux/skbuff.h: the low bits of _nfct hold enum ip_conntrack_info */
#define NFCT_PTRMASK	(~7UL)
#define IP_CT_IS_REPLY	3		/* and all above it */

#define __core __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} __core;

struct ctl_table {
	const char *procname;
	void *data;
} __core;

struct ctl_table_header {
	struct ctl_table *ctl_table;
} __core;

struct net_generic {
	struct {
		unsigned int len;
	} s;
} __core;

struct netns_ct {
	struct ctl_table_header *sysctl_header;	/* before Linux 5.13 */
} __core;

struct nf_conntrack_net {
	struct ctl_table_header *sysctl_header;	/* since */
} __core;

struct net {
	struct ns_common ns;
	struct net_generic *gen;
	struct netns_ct ct;
} __core;

typedef struct {
	struct net *net;
} __core possible_net_t;

struct net_device {
	char name[IFNAMSIZ];
	int ifindex;
	possible_net_t nd_net;
} __core;

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev;
	__u32 qlen;
} __core;

/* A next hop, and what waits for its link address. */
struct neighbour {
	struct sk_buff_head arp_queue;
} __core;

/* Sixteen bytes, to look at memory that has no type (read.h). */
struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__u16 u6_addr16[8];
		__u32 u6_addr32[4];
	} in6_u;
} __core;

struct sock_common {
	possible_net_t skc_net;
	volatile unsigned char skc_state;
	unsigned short skc_family;
	__u16 skc_num;		/* local port, host order */
	__be16 skc_dport;
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} __core;

struct kernfs_node {
	__u64 id;
} __core;

struct cgroup {
	struct kernfs_node *kn;
} __core;

struct sock_cgroup_data {
	struct cgroup *cgroup;	/* since Linux 5.15 */
	__u64 val;		/* before: the pointer, or, with bit 0, numbers of cgroup v1 */
} __core;

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	__u16 sk_protocol;
	__u32 sk_ack_backlog;	/* connections that wait to be accepted */
	__u32 sk_max_ack_backlog;
	struct sock_cgroup_data sk_cgrp_data;
} __core;

struct udp_sock {
	struct sk_buff_head reader_queue;	/* what readers took over from sk_receive_queue */
} __core;

struct tcp_sock {
	__u32 copied_seq;	/* of the byte that is read next */
} __core;

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len;
	unsigned int data_len;
	unsigned long _nfct;
	__be16 protocol;
	__u8 pkt_type : 3;
	__u16 vlan_tci;
	__u8 vlan_present : 1;	/* before Linux 6.2; since then vlan_tci is 0 without a tag */
	__u16 network_header;
	__u16 transport_header;
	__u16 mac_header;
	unsigned char *head;
	unsigned char *data;
} __core;

union nf_inet_addr {
	__u32 all[4];
} __core;

struct nf_conntrack_tuple {
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
	} src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
	} dst;
} __core;

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} __core;

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];	/* original, reply */
	unsigned long status;
} __core;

struct socket {
	struct sock *sk;
} __core;

struct file {
	void *private_data;
} __core;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} __core;

struct files_struct {
	struct fdtable *fdt;
} __core;

struct task_struct {
	int pid;			/* the thread's */
	int tgid;
	struct task_struct *group_leader;
	char comm[16];
	struct files_struct *files;
} __core;

/* A system call: its number and its first arguments. */
#if defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
} __core;
#define SYSTEM_CALL	syscallno
#define FIRST_ARGUMENT	orig_x0
#define SECOND_ARGUMENT	regs[1]
#define THIRD_ARGUMENT	regs[2]
/* include/uapi/asm-generic/unistd.h */
#define NR_READ		63
#define NR_READV	65
#define NR_RECVFROM	207
#define NR_RECVMSG	212
#else
struct pt_regs {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long orig_ax;
} __core;
#define SYSTEM_CALL	orig_ax
#define FIRST_ARGUMENT	di
#define SECOND_ARGUMENT	si
#define THIRD_ARGUMENT	dx
/* arch/x86/entry/syscalls/syscall_64.tbl */
#define NR_READ		0
#define NR_READV	19
#define NR_RECVFROM	45
#define NR_RECVMSG	47
#endif

/* include/uapi/linux/bpf.h: a packet as a program of a cgroup is given it. */
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
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
};

/* include/uapi/linux/uio.h and include/linux/socket.h, as user space has them. */
struct user_iovec {
	__u64 base;
	__u64 len;
};

struct user_msghdr {
	__u64 name;
	__u64 namelen;
	__u64 iov;
};

struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

#endif
