/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* What the iterator tells user space: one of these for each socket and process. */
#ifndef DNSTRACE_LISTENERS_H
#define DNSTRACE_LISTENERS_H

struct listening {
	__u64 started;		/* the process: ns, CLOCK_MONOTONIC */
	__u64 cgroup;		/* inode of the socket's; 0: unknown */
	__u32 netns;		/* inode number of the socket's */
	__u32 tgid;
	__u16 port;		/* host order */
	__u16 family;
	__u8 v6only;		/* takes no IPv4 */
	__u8 pad[3];
	char comm[16];
	__u8 addr[16];		/* IPv4 in the first four bytes; 0: any */
};

#endif
