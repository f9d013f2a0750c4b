package capture

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/tracer/cgroup"
)

// Observes is what a source sees at sockets, on this kernel and with these privileges.
// Where a field is false, an unseen packet means nothing.
//
// Reads by a process that takes data without receiving it, as by splice(2) or through
// a sockmap, are never seen.
type Observes struct {
	DeliveredUDP bool // datagrams that reach their socket
	DeliveredTCP bool // segments that reach their connection's socket
	ReadUDP      bool // datagrams that a process takes from its socket
	ReadTCP      bool // bytes that a process takes from its connection
}

// Observes returns what is seen at sockets. It does not change.
func (s *Source) Observes() Observes {
	_, datagrams := s.coll.Programs[bpf.DnstraceProgSkDataReady]
	_, segments := s.coll.Programs[bpf.DnstraceProgTcpProbe]
	_, reads := s.coll.Programs[bpf.DnstraceProgSockRecvLength]
	return Observes{DeliveredUDP: s.exact() || datagrams, DeliveredTCP: s.exact() || segments,
		ReadUDP: reads && (s.exact() || datagrams), ReadTCP: reads}
}

// exact tells whether every packet that reaches a socket is seen.
func (s *Source) exact() bool {
	_, ok := s.coll.Programs[bpf.DnstraceProgCgroupIngress]
	return ok
}

// arrivalWay is how packets are seen at their sockets (bpf/socket.h).
type arrivalWay int

const (
	// The first of those below that works.
	arrivalBest arrivalWay = iota
	// By a program of the root cgroup: every packet, on all kernels, with CAP_NET_ADMIN.
	arrivalCgroup
	// By tracepoints: of datagrams since Linux 6.3, and not all of those that reach one
	// socket on several processors in the same microsecond.
	arrivalTracepoints
	// Not at all.
	arrivalNone
)

// socketTracepoints are the tracepoints of the programs at sockets.
var socketTracepoints = map[string]string{
	bpf.DnstraceProgSkDataReady:    "sk_data_ready",    // since Linux 6.3
	bpf.DnstraceProgTcpProbe:       "tcp_probe",        // since Linux 4.16
	bpf.DnstraceProgSockRecvLength: "sock_recv_length", // since Linux 6.3
}

// prepareSockets removes the programs at sockets that are not wanted, or that the kernel
// does not support.
func prepareSockets(spec *ebpf.CollectionSpec, kernel *btf.Spec, way arrivalWay) error {
	for program, tracepoint := range socketTracepoints {
		if way == arrivalNone || tracepointArgs(kernel, tracepoint) == 0 {
			delete(spec.Programs, program)
		}
	}
	switch way {
	case arrivalBest:
	case arrivalCgroup:
		delete(spec.Programs, bpf.DnstraceProgSkDataReady)
		delete(spec.Programs, bpf.DnstraceProgTcpProbe)
	case arrivalTracepoints, arrivalNone:
		delete(spec.Programs, bpf.DnstraceProgCgroupIngress)
	}
	_, reads := spec.Programs[bpf.DnstraceProgSockRecvLength]
	return spec.Variables[bpf.DnstraceVarReadsObserved].Set(reads)
}

// withoutSockets removes from a spec what the source can work without: first the program
// of the root cgroup, then those of tracepoints.
func withoutSockets(spec *ebpf.CollectionSpec) (removed bool) {
	before := len(spec.Programs)
	delete(spec.Programs, bpf.DnstraceProgCgroupIngress)
	if len(spec.Programs) < before {
		return true
	}
	for program := range socketTracepoints {
		delete(spec.Programs, program)
	}
	return len(spec.Programs) < before
}

// rootInode is that of the root of cgroup2 (fs/kernfs/mount.c).
const rootInode = 1

// attachArrival attaches the program of the root cgroup, or, where that fails, leaves it to
// the tracepoints and sets cgroupErr.
func (s *Source) attachArrival(way arrivalWay) error {
	program := s.coll.Programs[bpf.DnstraceProgCgroupIngress]
	if program == nil {
		return nil
	}
	s.cgroupErr = s.attachToRoot(program)
	switch {
	case s.cgroupErr == nil:
		s.forget(bpf.DnstraceProgSkDataReady)
		s.forget(bpf.DnstraceProgTcpProbe)
	case way == arrivalCgroup:
		return s.cgroupErr
	default:
		s.forget(bpf.DnstraceProgCgroupIngress)
	}
	return nil
}

func (s *Source) attachToRoot(program *ebpf.Program) error {
	root, err := cgroup.MountPoint()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return fmt.Errorf("cgroups: %s: %w", root, err)
	}
	if st.Ino != rootInode {
		return fmt.Errorf("cgroups: %s is not the node's root cgroup: mount the node's /sys/fs/cgroup there", root)
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: ebpf.AttachCGroupInetIngress, Program: program})
	if err != nil {
		return fmt.Errorf("attach to the root cgroup: %w", err)
	}
	s.links = append(s.links, l)
	return nil
}

// forget unloads a program that is not attached.
func (s *Source) forget(program string) {
	if p := s.coll.Programs[program]; p != nil {
		_ = p.Close()
		delete(s.coll.Programs, program)
	}
}

// arrivalHooks names the hooks that serve, for `check`.
func (s *Source) arrivalHooks() string {
	o := s.Observes()
	switch {
	case s.exact():
		return "UDP and TCP by cgroup_skb/ingress of the root cgroup: every packet"
	case o.DeliveredUDP && o.DeliveredTCP:
		return "UDP by sk_data_ready, which may miss one of several at once, TCP by tcp_probe"
	case o.DeliveredTCP:
		return "TCP by tcp_probe, UDP not"
	}
	return "neither UDP nor TCP"
}

// probeArrival tells how packets are seen at their sockets.
func probeArrival(s *Source) Finding {
	o := s.Observes()
	f := Finding{What: "arrival at sockets", OK: o.DeliveredUDP && o.DeliveredTCP, Detail: s.arrivalHooks(),
		Lost:   "where no device receives what a socket gets (BPF host routing, socket load balancing), it is unknown whether it arrived",
		Remedy: "CAP_NET_ADMIN (it is given up after the start) and the node's /sys/fs/cgroup, or Linux 6.3 or later"}
	if err := cmp.Or(s.socketErr, s.cgroupErr); err != nil && !f.OK {
		f.Detail += ": " + err.Error()
	}
	var refused *ebpf.VerifierError
	if errors.As(s.socketErr, &refused) {
		f.Remedy = "none: please report it with the output of `uname -r`"
	}
	return f
}

// probeReading tells whether readers are seen.
func probeReading(s *Source) Finding {
	o := s.Observes()
	f := Finding{What: "reading from sockets", OK: o.ReadUDP && o.ReadTCP, Detail: "sock_recv_length: by whom and when",
		Lost:   "how long a message waits in its socket's queue is known of servers with the plugin only; one that hangs looks like one that is slow",
		Remedy: "Linux 6.3 or later"}
	if !f.OK {
		f.Detail = "the kernel has no tracepoint sock_recv_length"
		if s.socketErr != nil {
			f.Detail = s.socketErr.Error()
		}
	}
	return f
}
