package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// emptyPrograms are attached: what a run costs in which nothing is done, most of
// which is the kernel's looking at the clock.
type emptyPrograms struct {
	programs
	links []link.Link
}

// emptyAt names the empty program at a tracepoint.
func emptyAt(tracepoint string) string { return "empty at " + tracepoint }

// attachEmpty attaches a program to every tracepoint that the tracer has one at.
// The caller must close them.
func attachEmpty() (*emptyPrograms, error) {
	e := &emptyPrograms{programs: make(programs)}
	for _, tracepoint := range tracepoints {
		if tracepoint == "" || e.programs[emptyAt(tracepoint)] != nil {
			continue
		}
		if err := e.attach(tracepoint); err != nil {
			e.close()
			return nil, fmt.Errorf("empty program at %s: %w", tracepoint, err)
		}
	}
	return e, nil
}

// rootCgroup is the place of a program that is at no tracepoint: every packet that
// reaches a socket.
const rootCgroup = "cgroup_skb/ingress"

func (e *emptyPrograms) attach(tracepoint string) error {
	if tracepoint == rootCgroup {
		return e.attachToRoot()
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	e.programs[emptyAt(tracepoint)] = p
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return err
	}
	e.links = append(e.links, l)
	return nil
}

func (e *emptyPrograms) attachToRoot() error {
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}, // let it pass
	})
	if err != nil {
		return err
	}
	e.programs[emptyAt(rootCgroup)] = p
	l, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: ebpf.AttachCGroupInetIngress, Program: p})
	if err != nil {
		return err
	}
	e.links = append(e.links, l)
	return nil
}

// cgroupRoot returns where cgroup2 is mounted: with others of version 1, or alone.
func cgroupRoot() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("cgroup2 is mounted neither at /sys/fs/cgroup nor below it")
}

func (e *emptyPrograms) close() {
	for _, l := range e.links {
		_ = l.Close()
	}
	e.programs.close()
}
