/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/* Who sends: the process, where it can be proven, and the socket's cgroup. */
#ifndef DNSTRACE_SENDER_H
#define DNSTRACE_SENDER_H

/*
 * The thread that sends: the one on the CPU, if the file that its system call
 * was given is the packet's socket. Anything less would name whom a softirq
 * happened to interrupt. Needs bpf_task_pt_regs, since Linux 5.15.
 */
static __always_inline struct task_struct *sending_task(struct sock *sk)
{
	struct task_struct *task;
	struct files_struct *open_files;
	struct fdtable *fdt;
	struct file *file;
	struct socket *sock;
	__u64 fd;
	struct pt_regs *regs;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return 0;
	task = bpf_get_current_task_btf();
	open_files = task->files;
	if (!open_files)		/* a kernel thread */
		return 0;
	fdt = open_files->fdt;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	fd = regs->FIRST_ARGUMENT;
	if (fd >= fdt->max_fds)
		return 0;
	file = (void *)load64(fdt->fd + fd);
	if (!file)
		return 0;
	sock = (void *)load64(&file->private_data);
	if (!sock || (struct sock *)load64(&sock->sk) != sk)
		return 0;
	return task;
}

static __always_inline void read_task(struct sender *who, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	who->tgid = task->tgid;
	__builtin_memcpy(who->comm, leader->comm, sizeof(who->comm));
}

static __always_inline void read_thread(struct thread *thread, struct task_struct *task)
{
	thread->tid = task->pid;
	__builtin_memcpy(thread->comm, task->comm, sizeof(thread->comm));
}

/*
 * The inode of the cgroup (v2) that the socket was made in, 0 if there is none.
 * A connection request or one that is over is no whole socket and has none.
 */
static __always_inline __u64 read_cgroup(struct sock *sk)
{
	struct cgroup *cgroup;
	struct kernfs_node *node;
	__u8 state = sk->__sk_common.skc_state;

	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
		return 0;
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup)) {
		cgroup = sk->sk_cgrp_data.cgroup;
	} else {
		__u64 val = sk->sk_cgrp_data.val;

		if (val & 1)
			return 0;
		cgroup = (void *)(val & ~3ULL);
	}
	if (!cgroup)
		return 0;
	node = (void *)load64(&cgroup->kn);
	return node ? load64(&node->id) : 0;
}

#endif
