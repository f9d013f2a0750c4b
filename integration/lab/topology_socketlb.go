package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab/datapath"
)

// socketLB is a topology with the Service translated at the client's socket: the
// Service address is in no packet.
func socketLB(t Topology) Topology {
	t = t.withDefaults()
	t.Name = "socket-lb-" + t.Name
	last := t.Servers[len(t.Servers)-1]
	t.OnWire = podEndpoint(last.Port)
	t.service = func(*Lab) error { return nil }
	finish := t.finish
	t.finish = func(l *Lab) error { return errors.Join(finish(l), l.attachSocketLB()) }
	return t
}

// socketPrograms are the programs of socketlb.c and where they are attached.
var socketPrograms = map[string]ebpf.AttachType{
	"connect4": ebpf.AttachCGroupInet4Connect, "connect6": ebpf.AttachCGroupInet6Connect,
	"sendmsg4": ebpf.AttachCGroupUDP4Sendmsg, "sendmsg6": ebpf.AttachCGroupUDP6Sendmsg,
	"recvmsg4": ebpf.AttachCGroupUDP4Recvmsg, "recvmsg6": ebpf.AttachCGroupUDP6Recvmsg,
	"getpeername4": ebpf.AttachCgroupInet4GetPeername, "getpeername6": ebpf.AttachCgroupInet6GetPeername,
}

// attachSocketLB translates the Service at the sockets of the node and its pods. The
// programs are attached to the root cgroup, as on a real node, and leave the sockets of
// other namespaces alone. They go with this process.
func (l *Lab) attachSocketLB() error {
	coll, err := l.loadBPF(datapath.LoadSocketLB, l.bpfServices())
	if err != nil {
		return err
	}
	l.mu.Lock()
	hosts := l.hosts
	l.mu.Unlock()
	for name, host := range hosts {
		if name == Upstream {
			continue
		}
		cookie, err := host.cookie()
		if err != nil {
			return err
		}
		if err := coll.Maps["namespaces"].Put(cookie, uint8(1)); err != nil {
			return err
		}
	}
	root, err := rootCgroup()
	if err != nil {
		return err
	}
	for name, where := range socketPrograms {
		attached, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: where, Program: coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s to the cgroup %s: %w", name, root, err)
		}
		l.atClose(attached.Close)
	}
	return nil
}

// cookie is the number by which programs tell the host's network namespace.
func (h *Host) cookie() (cookie uint64, err error) {
	err = h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	return cookie, err
}

// rootCgroup is where the hierarchy of cgroup v2 is mounted.
func rootCgroup() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// device path type …
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}
