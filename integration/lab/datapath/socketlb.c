//go:build ignore

// SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)
/*
 * A Service translated at the socket, as kube-proxy replacements do: a client that
 * connects or sends to the Service address gets the endpoint's, and no packet ever
 * carries the Service address. What the client receives, and getpeername(), give the
 * Service address back.
 *
 * The programs are attached to the root cgroup, and translate for the network
 * namespaces in `namespaces` only.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "service.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct service service4, service6;

/* Cookies of the network namespaces whose sockets are translated for. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u8);
} namespaces SEC(".maps");

/* Cookies of the sockets that were translated for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u8);
} sockets SEC(".maps");

/* Calls in which an address was replaced: towards the endpoint, and back. */
__u64 translated, translated_back;

#define DNS_PORT	bpf_htons(53)
#define PROCEED		1

static __always_inline struct address address6(const struct bpf_sock_addr *ctx)
{
	struct address a = {
		.word = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
	};

	return a;
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const volatile struct address *a)
{
	ctx->user_ip6[0] = a->word[0];
	ctx->user_ip6[1] = a->word[1];
	ctx->user_ip6[2] = a->word[2];
	ctx->user_ip6[3] = a->word[3];
}

/* Whether a call to `to` is to be translated; keeps its socket for the way back. */
static __always_inline bool forth(struct bpf_sock_addr *ctx, const struct address *to,
				  const volatile struct service *service)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	__u8 one = 1;

	if (ctx->user_port != DNS_PORT || !same(to, &service->address) ||
	    !bpf_map_lookup_elem(&namespaces, &cookie))
		return false;
	cookie = bpf_get_socket_cookie(ctx);
	bpf_map_update_elem(&sockets, &cookie, &one, BPF_ANY);
	__sync_fetch_and_add(&translated, 1);
	return true;
}

/* Whether `from` stands for the Service address at this socket. */
static __always_inline bool back(struct bpf_sock_addr *ctx, const struct address *from,
				 const volatile struct service *service)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);

	if (ctx->user_port != service->endpoint_port || !same(from, &service->endpoint) ||
	    !bpf_map_lookup_elem(&sockets, &cookie))
		return false;
	__sync_fetch_and_add(&translated_back, 1);
	return true;
}

static __always_inline int forth4(struct bpf_sock_addr *ctx)
{
	struct address to = mapped(ctx->user_ip4);

	if (forth(ctx, &to, &service4)) {
		ctx->user_ip4 = service4.endpoint.word[3];
		ctx->user_port = service4.endpoint_port;
	}
	return PROCEED;
}

static __always_inline int back4(struct bpf_sock_addr *ctx)
{
	struct address from = mapped(ctx->user_ip4);

	if (back(ctx, &from, &service4)) {
		ctx->user_ip4 = service4.address.word[3];
		ctx->user_port = DNS_PORT;
	}
	return PROCEED;
}

static __always_inline int forth6(struct bpf_sock_addr *ctx)
{
	struct address to = address6(ctx);

	if (forth(ctx, &to, &service6)) {
		set_address6(ctx, &service6.endpoint);
		ctx->user_port = service6.endpoint_port;
	}
	return PROCEED;
}

static __always_inline int back6(struct bpf_sock_addr *ctx)
{
	struct address from = address6(ctx);

	if (back(ctx, &from, &service6)) {
		set_address6(ctx, &service6.address);
		ctx->user_port = DNS_PORT;
	}
	return PROCEED;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return forth4(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return forth4(ctx);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return back4(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return back4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return forth6(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return forth6(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return back6(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return back6(ctx);
}
