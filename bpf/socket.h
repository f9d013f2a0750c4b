/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * Arrival and reading at sockets, whichever way a packet came there: a program that
 * redirects it past its device's reception, as BPF host routing does, does not hide it.
 *
 * A datagram is in the queue of its receiver, or at the programs of its cgroup right before; a
 * segment is at its socket, in order or not. A read is a process's own: the thread on
 * the CPU is the reader. A datagram that was read is known to user space by its socket
 * and by the front of what the reader got, which is in the reader's memory by then.
 * Of TCP the socket tells up to which byte of the stream was read.
 */
#ifndef DNSTRACE_SOCKET_H
#define DNSTRACE_SOCKET_H

/* Bytes of what was read that tell which datagram it is: the DNS header and most names. */
#define READ_FRONT	64

/* Whether reading is observed too (sock_recv_length); set before loading. */
const volatile bool reads_observed;

/*
 * Whether user space knows of every datagram that may wait at a socket: cgroup_ingress is
 * attached, and all lookups have been reported for as long as one may wait. In a section of
 * its own, as that changes after loading.
 */
volatile __u32 waiting_known SEC(".data.arrivals");

/* When cgroup_ingress saw the last one: ns, CLOCK_MONOTONIC. */
volatile __u64 last_arrival SEC(".data.arrivals");

/* How long it may be under way from there into its queue, in ns: some hundred. */
#define UNDER_WAY	5000

/*
 * UDP sockets that got a message of DNS and have no observed port of their own nor of a
 * peer, as those of musl's resolver: their reads are known by this. The oldest make room.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u8);
} readers SEC(".maps");

static __always_inline bool is_inet(const struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	return family == AF_INET || family == AF_INET6;
}

static __always_inline __u32 netns_of_socket(const struct sock *sk)
{
	struct net *net = (void *)load64(&sk->__sk_common.skc_net.net);

	return net ? load32(&net->ns.inum) : 0;
}

/* What the events of sockets have in common: no device, and no tunnel any more. */
static __always_inline void begin_at_socket(struct scratch *s, __u32 kind, __u32 netns, __u8 protocol)
{
	s->e.time = bpf_ktime_get_ns();
	s->e.kind = kind;
	s->e.netns = netns;
	s->e.ifindex = 0;
	s->e.ifname[0] = 0;
	s->e.protocol = protocol;
	s->e.parts = 0;
	s->e.seq = 0;
	s->e.tcp_flags = 0;
	s->e.skip = 0;
	s->e.vlan = 0;
	s->e.inner_vlan = 0;
	s->e.servers = 0;
	s->paged = 0;
	s->at = 0;
	s->end = 0;
}

/* Whether a message between two ports may be of DNS; server_ends() is sure of it. */
static __always_inline bool may_be_dns(__u16 sport, __u16 dport)
{
	return is_dns_port(sport, dport) || may_be_learned(sport, dport);
}

/* Reads the addresses of the IP header in s->h; false if neither is that of a DNS server. */
static __always_inline bool read_addresses(struct scratch *s)
{
	if (s->h[0] >> 4 == 6) {
		s->e.ip_version = 6;
		__builtin_memcpy(s->e.saddr, s->h + 8, 16);
		__builtin_memcpy(s->e.daddr, s->h + 24, 16);
	} else {
		s->e.ip_version = 4;
		map_ipv4(s->e.saddr, s->h + 12);
		map_ipv4(s->e.daddr, s->h + 16);
	}
	s->e.servers = server_ends(s, 0);
	return s->e.servers;
}

/* What the TCP header in s->h says of a segment of len bytes; its length, 0: none. */
static __always_inline __u32 read_segment(struct scratch *s, __u32 len)
{
	__u32 header = (s->h[12] >> 4) * 4;

	if (header < 20 || len < header)
		return 0;
	s->e.seq = be32(s->h + 4);
	s->e.tcp_flags = s->h[13];
	s->left = len - header;
	return header;
}

static __always_inline void append_socket(struct scratch *s, __u64 sk, __u64 cgroup)
{
	__u64 *id;

	if (cgroup && (id = append(s, sizeof(*id), PART_CGROUP)))
		__builtin_memcpy(id, &cgroup, sizeof(*id));
	if ((id = append(s, sizeof(*id), PART_SOCKET)))
		__builtin_memcpy(id, &sk, sizeof(*id));
}

/*
 * Lets the reads of a socket be known that neither its port nor its peer's tells of. Its
 * own port need not be the one that the message was sent to: that of a proxy which takes
 * what is sent to others (TPROXY) is another.
 */
static __always_inline void expect_read(const struct sock *sk)
{
	/* The two ports, that of the peer in network order. */
	__u32 ports = load32(&sk->__sk_common.skc_dport);
	__u64 key = (__u64)sk;
	__u8 yes = 1;

	if (!reads_observed || is_dns_port(ports >> 16, bpf_ntohs((__u16)ports)) || bpf_map_lookup_elem(&readers, &key))
		return;
	bpf_map_update_elem(&readers, &key, &yes, BPF_ANY);
}

/* Sends what was delivered, its payload captured in the tail. */
static __always_inline void send_delivered(struct scratch *s, struct sk_buff *skb, __u64 sk, __u64 cgroup,
					   __u32 captured)
{
	s->e.payload_len = s->left > 0xffff ? 0xffff : s->left;
	if (!is_chosen(s, 0, captured))
		return;
	s->e.captured = captured;
	s->used = captured;
	append_socket(s, sk, cgroup);
	send(s, skb, EVENT_DELIVERED);
}

/*
 * Whether a datagram is still the one that was read. Whoever receives from the socket on
 * another CPU lets go of it, and its memory may be another packet's before all is read: to
 * its ports, the identification in its IPv4 header, or its DNS ID that is another one.
 */
static __always_inline bool is_unchanged(const struct scratch *s, const struct sk_buff *skb, const __u8 *l4,
					 const __u8 *l3, const __u8 *data)
{
	return skb->data == data && skb->len == s->left &&
	       bpf_ntohl(load32(l4)) == ((__u32)s->e.sport << 16 | s->e.dport) &&
	       load32(l3 + 4) == *(__u32 *)(s->h + 4) && load32(data) == *(__u32 *)s->tail;
}

/*
 * What stands last in the queue of a socket that wakes its readers: the datagram that it
 * just got, unless another CPU was faster. The pointers are followed without a
 * reference, so what they say must agree with the socket, and still hold at the end.
 */
static __always_inline void queued(struct scratch *s, struct sock *sk, struct sk_buff *skb, const __u8 *l4)
{
	const __u8 *l3 = skb->head + skb->network_header, *data = skb->data;
	__u32 netns = netns_of_socket(sk);
	__u64 want, paged;

	if (!is_observed(netns))
		return;
	begin_at_socket(s, EVENT_DELIVERED, netns, IPPROTO_UDP);
	load(s->h, 8, l4);
	s->e.sport = be16(s->h);
	s->e.dport = be16(s->h + 2);
	s->left = skb->len;
	if (be16(s->h + 4) != s->left + 8 || s->e.dport != sk->__sk_common.skc_num)
		return;
	load(s->h, 20, l3);
	if (s->h[0] >> 4 == 6)
		load(s->h, 40, l3);
	if (!read_addresses(s) || is_no_message(s))
		return;
	s->e.skb = (__u64)skb;
	/* Without what is in pages, which takes a reference. */
	want = s->left;
	paged = skb->data_len;
	if (paged >= want)
		return;
	want -= paged;
	if (want > MAX_PAYLOAD)
		want = MAX_PAYLOAD;
	barrier_var(want);
	if (!want || want > MAX_PAYLOAD || bpf_probe_read_kernel(s->tail, want, data) ||
	    !is_unchanged(s, skb, l4, l3, data))
		return;
	expect_read(sk);
	send_delivered(s, 0, (__u64)sk, read_cgroup(sk), want);
}

/* A segment at a connected socket. */
static __always_inline void accepted(struct scratch *s, struct sock *sk, struct sk_buff *skb)
{
	struct bpf_dynptr ptr;
	__u32 netns = netns_of_socket(sk), header;

	if (!is_observed(netns))
		return;
	begin_at_socket(s, EVENT_DELIVERED, netns, IPPROTO_TCP);
	load(s->h, 20, skb->data);
	s->e.sport = be16(s->h);
	s->e.dport = be16(s->h + 2);
	header = read_segment(s, skb->len);
	if (!header || !is_reported(s))
		return;
	load(s->h, 20, skb->head + skb->network_header);
	if (s->h[0] >> 4 == 6)
		load(s->h, 40, skb->head + skb->network_header);
	if (!read_addresses(s))
		return;
	s->e.skb = (__u64)skb;
	s->start = (__u64)skb->data;
	s->at = *(volatile __u64 *)&s->start + header;
	s->end = *(volatile __u64 *)&s->start + (skb->len - skb->data_len);
	send_delivered(s, skb, (__u64)sk, read_cgroup(sk), read_payload(s, skb, &ptr));
}

/* Where a program of a cgroup finds the header behind IP's. */
struct place {
	__u32 at;
	__u8 protocol;
	__u8 pad[3];
};

/*
 * A packet that a socket is about to get, if its ports are of DNS. The packet begins
 * with the IP header, and what came in fragments is whole.
 */
static __always_inline bool find_transport(struct __sk_buff *ctx, struct place *p)
{
	const __u8 *h = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 ports[4];

	if (h + 24 > end)
		return false;
	if (h[0] >> 4 == 4) {
		p->protocol = h[9];
		p->at = (h[0] & 0x0f) * 4;
	} else {
		p->protocol = h[6];
		p->at = 40;
		/* RFC 8200, section 4.1: in this order, and nearly never there. */
#pragma unroll
		for (int i = 0; i < 4; i++) {
			__u8 extension[4];

			if (p->protocol != IPPROTO_HOPOPTS && p->protocol != IPPROTO_DSTOPTS &&
			    p->protocol != IPPROTO_ROUTING && p->protocol != IPPROTO_FRAGMENT)
				break;
			if (bpf_skb_load_bytes(ctx, p->at, extension, sizeof(extension)))
				return false;
			p->at += p->protocol == IPPROTO_FRAGMENT ? 8 : (extension[1] + 1) * 8;
			p->protocol = extension[0];
		}
	}
	if (p->protocol != IPPROTO_UDP && p->protocol != IPPROTO_TCP)
		return false;
	if (p->at == 20)
		return may_be_dns(be16(h + 20), be16(h + 22));
	if (p->at == 40 && h + 44 <= end)
		return may_be_dns(be16(h + 40), be16(h + 42));
	return !bpf_skb_load_bytes(ctx, p->at, ports, sizeof(ports)) && may_be_dns(be16(ports), be16(ports + 2));
}

/* Reads the headers of such a packet; the bytes before its payload, 0: it is none to report. */
static __always_inline __u32 read_headers(struct scratch *s, struct __sk_buff *ctx, const struct place *p)
{
	const __u8 *h = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 len = ctx->len - p->at, header = 8;

	if (ctx->len < p->at)
		return 0;
	if (p->at == 20 && h + 40 <= end) {
		/* Nearly all: without a call. */
		__builtin_memcpy(s->h, h + 20, 20);
	} else if (bpf_skb_load_bytes(ctx, p->at, s->h, 20)) {
		return 0;
	}
	s->e.sport = be16(s->h);
	s->e.dport = be16(s->h + 2);
	if (p->protocol == IPPROTO_TCP) {
		header = read_segment(s, len);
		if (!header || !is_reported(s))
			return 0;
	} else {
		s->left = be16(s->h + 4) - 8;
		if (s->left > len - 8 || len < 8)
			return 0;
	}
	if (h + 20 > end)
		return 0;
	if (h[0] >> 4 == 4)
		__builtin_memcpy(s->h, h, 20);
	else if (bpf_skb_load_bytes(ctx, 0, s->h, 40))
		return 0;
	return read_addresses(s) && (p->protocol == IPPROTO_TCP || !is_no_message(s)) ? p->at + header : 0;
}

/*
 * Whether a SYN finds no room at its listener, which discards it without a drop
 * (tcp_conn_request). A socket that does not listen has no such queue.
 */
static __always_inline bool finds_no_room(const struct scratch *s, const struct sock *sk)
{
	return (s->e.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       load32(&sk->sk_ack_backlog) > load32(&sk->sk_max_ack_backlog);
}

static __always_inline void arriving(struct scratch *s, struct __sk_buff *ctx, const struct place *p)
{
	struct sk_buff *skb;
	struct sock *sk;
	__u32 netns, at;
	__u64 want;

	/* The verifier lets nobody follow it; read back it is a number, and memory to read. */
	s->e.skb = (__u64)ctx;
	skb = (void *)*(volatile __u64 *)&s->e.skb;
	sk = (void *)load64(&skb->sk);
	if (!sk)
		return;
	netns = netns_of_socket(sk);
	if (!is_observed(netns))
		return;
	begin_at_socket(s, EVENT_DELIVERED, netns, p->protocol);
	last_arrival = s->e.time;
	at = read_headers(s, ctx, p);
	if (!at)
		return;
	want = s->left;
	if (want > MAX_PAYLOAD)
		want = MAX_PAYLOAD;
	if (want) {
		barrier_var(want);
		/* The same, and for the verifier of Linux 5.10 not 0. */
		want = ((want - 1) & (MAX_PAYLOAD - 1)) + 1;
		if (bpf_skb_load_bytes(ctx, at, s->tail, want))
			return;
	}
	if (p->protocol == IPPROTO_UDP)
		expect_read(sk);
	else if (finds_no_room(s, sk))
		s->e.parts |= PART_LISTEN_FULL;
	send_delivered(s, 0, (__u64)sk, bpf_skb_cgroup_id(ctx), want);
}

/* Where the system call of a reader has its result, in the reader's memory. */
static __always_inline bool find_result(struct task_struct *task, struct user_iovec *v)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct user_msghdr message;
	__u64 at = regs->SECOND_ARGUMENT;

	switch (regs->SYSTEM_CALL) {
	case NR_READ:
	case NR_RECVFROM:
		v->base = at;
		v->len = regs->THIRD_ARGUMENT;
		return true;
	case NR_RECVMSG:
		if (bpf_probe_read_user(&message, sizeof(message), (void *)at))
			return false;
		at = message.iov;
	case NR_READV:
		return !bpf_probe_read_user(v, sizeof(*v), (void *)at);
	}
	/* recvmmsg does not tell which of its messages this is, io_uring nothing at all. */
	return false;
}

/* Reads the front of what the reader got into the tail; its length, 0: unknown. */
static __always_inline __u32 read_front(struct scratch *s, struct task_struct *task, __u32 got)
{
	struct user_iovec v;
	__u64 want = got;

	if (!find_result(task, &v))
		return 0;
	if (want > v.len)
		want = v.len;
	if (want > READ_FRONT)
		want = READ_FRONT;
	barrier_var(want);
	if (!want || want > READ_FRONT || bpf_probe_read_user(s->tail, want, (void *)v.base))
		return 0;
	return want;
}

static __always_inline void read_peers(struct scratch *s, struct sock *sk)
{
	__u32 local = sk->__sk_common.skc_rcv_saddr, peer = sk->__sk_common.skc_daddr;

	s->e.sport = bpf_ntohs(sk->__sk_common.skc_dport);
	s->e.dport = sk->__sk_common.skc_num;
	if (sk->__sk_common.skc_family == AF_INET) {
		s->e.ip_version = 4;
		map_ipv4(s->e.saddr, (__u8 *)&peer);
		map_ipv4(s->e.daddr, (__u8 *)&local);
		return;
	}
	s->e.ip_version = 6;
	load(s->e.saddr, 16, &sk->__sk_common.skc_v6_daddr);
	load(s->e.daddr, 16, &sk->__sk_common.skc_v6_rcv_saddr);
}

/*
 * Whether user space knows without the front which datagram was read: it knows of all that
 * reached the socket, none is left in its queue, and none is under way into it.
 * There is one candidate then, unless another reader is not seen yet, which user space
 * notices. Each look at a reader's memory takes 100 ns, and recvmsg wants three.
 */
static __always_inline bool is_last(const struct scratch *s, const struct sock *sk)
{
	return waiting_known && (__s64)(s->e.time - last_arrival) > UNDER_WAY &&
	       !load32(&sk->sk_receive_queue.qlen) && !load32(&((struct udp_sock *)sk)->reader_queue.qlen);
}

static __always_inline void taken(struct scratch *s, struct sock *sk, __u32 got)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u8 protocol = sk->sk_protocol;
	__u32 netns = netns_of_socket(sk), captured = 0;

	if (!is_observed(netns))
		return;
	if (got > 0xffff)
		got = 0xffff;
	begin_at_socket(s, EVENT_READ, netns, protocol);
	s->e.skb = 0;
	s->e.payload_len = got;
	/* Of a datagram its delivery says the rest, who asks as well. */
	if (protocol == IPPROTO_TCP) {
		read_peers(s, sk);
		s->e.servers = server_ends(s, 0);
		if (!s->e.servers || !is_chosen(s, 0, 0))
			return;
		s->e.seq = load32(&((struct tcp_sock *)sk)->copied_seq) - got;
	} else if (!is_last(s, sk)) {
		captured = read_front(s, task, got);
	}
	s->e.captured = captured;
	s->used = captured;
	append_task(s, task);
	append_socket(s, (__u64)sk, protocol == IPPROTO_TCP ? read_cgroup(sk) : 0);
	send(s, 0, EVENT_READ);
}

/* Whether what a socket got may be of DNS. */
static __always_inline bool may_be_dns_socket(struct sock *sk)
{
	__u16 protocol = sk->sk_protocol;
	__u64 key = (__u64)sk;

	if ((protocol != IPPROTO_UDP && protocol != IPPROTO_TCP) || !is_inet(sk))
		return false;
	if (is_dns_port(sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport)))
		return true;
	if (protocol == IPPROTO_TCP)
		return may_be_learned(sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport));
	return bpf_map_lookup_elem(&readers, &key);
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(sk_data_ready, struct sock *sk)
{
	struct sk_buff *skb;
	struct scratch *s;
	const __u8 *l4;
	__u32 ports;

	if (sk->sk_protocol != IPPROTO_UDP || !is_inet(sk))
		return 0;
	skb = sk->sk_receive_queue.prev;
	if (!skb || (void *)skb == (void *)&sk->sk_receive_queue)
		return 0;
	l4 = skb->head + skb->transport_header;
	ports = bpf_ntohl(load32(l4));
	if (!may_be_dns(ports >> 16, ports) || !(s = enter(EVENT_DELIVERED, EVENT_DELIVERED)))
		return 0;
	queued(s, sk, skb, l4);
	leave(s);
	return 0;
}

SEC("tp_btf/tcp_probe")
int BPF_PROG(tcp_probe, struct sock *sk, struct sk_buff *skb)
{
	struct scratch *s;

	if (!may_be_dns(sk->__sk_common.skc_num, bpf_ntohs(sk->__sk_common.skc_dport)) ||
	    !(s = enter(SCRATCH_SEGMENT, EVENT_DELIVERED)))
		return 0;
	accepted(s, sk, skb);
	leave(s);
	return 0;
}

SEC("cgroup_skb/ingress")
int cgroup_ingress(struct __sk_buff *ctx)
{
	struct place p;
	struct scratch *s;

	if (find_transport(ctx, &p) && (s = enter(EVENT_DELIVERED, EVENT_DELIVERED))) {
		arriving(s, ctx, &p);
		leave(s);
	}
	return 1;	/* let it pass */
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	struct scratch *s;

	if (ret <= 0 || flags & (MSG_PEEK | MSG_ERRQUEUE) || !may_be_dns_socket(sk) ||
	    !(s = enter(EVENT_READ, EVENT_READ)))
		return 0;
	taken(s, sk, ret);
	leave(s);
	return 0;
}

#endif
