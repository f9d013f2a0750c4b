package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/tracer/cgroup"
)

// returning is a program that returns a number for every packet.
func returning(t *testing.T, kind ebpf.ProgramType, attach ebpf.AttachType, code int32) *ebpf.Program {
	t.Helper()
	return loaded(t, &ebpf.ProgramSpec{Type: kind, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, code), asm.Return()}})
}

func loaded(t *testing.T, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Drops by programs of devices: where the program is attached identifies each.
func TestDropsByProgramsOfDevices(t *testing.T) {
	const drop, drops = 2, 1 // TC_ACT_SHOT, XDP_DROP (include/uapi/linux/pkt_cls.h, bpf.h)
	shot := returning(t, ebpf.SchedCLS, ebpf.AttachNone, drop)
	// Redirects to a device that is not there.
	lost := loaded(t, &ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, 9999), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
	}})
	xdp := returning(t, ebpf.XDP, ebpf.AttachXDP, drops)
	tcx := func(p *ebpf.Program, at ebpf.AttachType) func() (link.Link, error) {
		return func() (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: 1, Program: p, Attach: at})
		}
	}
	for _, tc := range []struct {
		name         string
		major, minor int // of Linux, since which it is there
		attach       func() (link.Link, error)
		want         string
	}{
		{"tc, incoming", 6, 6, tcx(shot, ebpf.AttachTCXIngress), BPFTCIngress},
		{"tc, outgoing", 6, 6, tcx(shot, ebpf.AttachTCXEgress), BPFTCEgress},
		{"tc, redirected to nowhere", 6, 6, tcx(lost, ebpf.AttachTCXIngress), BPFRedirect},
		{"XDP", 5, 10, func() (link.Link, error) {
			return link.AttachXDP(link.XDPOptions{Interface: 1, Program: xdp, Flags: link.XDPGenericMode})
		}, BPFXDP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !kernelAtLeast(tc.major, tc.minor) {
				return
			}
			var attached link.Link
			netns, send := loopbackOfItsOwn(t, func() (err error) {
				attached, err = tc.attach()
				return err
			})
			defer attached.Close()
			source := openIn(t, netns)
			send(etherIPv4, ethernet(etherIPv4, plain))
			wantBPF(t, source, tc.want)
		})
	}
}

// wantBPF wants one drop, by a program that is attached there.
func wantBPF(t *testing.T, source *Source, want string) {
	t.Helper()
	dropped := ofKind(poll(t, source), Drop)
	if len(dropped) != 1 {
		t.Fatalf("%d drops: %+v", len(dropped), dropped)
	}
	if d := dropped[0]; d.BPF != want {
		t.Errorf("by %q, expected %q: %q in %q: %q", d.BPF, want, d.Reason, d.Where, d.Description)
	}
}

// inCgroup moves this process into a cgroup of its own until the test ends.
func inCgroup(t *testing.T) (path string) {
	t.Helper()
	root, err := cgroup.MountPoint()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own := root
	for line := range strings.Lines(string(before)) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = filepath.Join(root, at)
		}
	}
	path = filepath.Join(root, fmt.Sprintf("dnstrace-test-%d", os.Getpid()))
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), fmt.Append(nil, os.Getpid()), 0)
	}
	if err := errors.Join(os.Mkdir(path, 0o755), move(path)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(move(own), os.Remove(path)); err != nil {
			t.Error(err)
		}
	})
	return path
}

// Drops by programs of cgroups and of sockets.
func TestDropsByProgramsOfSockets(t *testing.T) {
	path := inCgroup(t)
	attach := func(at ebpf.AttachType) func(int) (link.Link, error) {
		return func(int) (link.Link, error) {
			return link.AttachCgroup(link.CgroupOptions{Path: path, Attach: at, Program: returning(t, ebpf.CGroupSKB, at, 0)})
		}
	}
	for _, tc := range []struct {
		name   string
		attach func(fd int) (link.Link, error)
		want   string
	}{
		{"cgroup, outgoing", attach(ebpf.AttachCGroupInetEgress), BPFCgroupEgress},
		{"cgroup, incoming", attach(ebpf.AttachCGroupInetIngress), BPFSocketFilter},
		{"socket filter", func(fd int) (link.Link, error) {
			nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
			return nil, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
		}, BPFSocketFilter},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
			clientFD, _ := boundUDP(t, unix.AF_INET, "127.0.0.1")
			attached, err := tc.attach(fd)
			if err != nil {
				t.Fatal(err)
			}
			if attached != nil {
				defer attached.Close()
			}
			source := openAt(t, arrivalBest, server.Port())
			if err := unix.Sendto(clientFD, query, 0, sockaddr(server)); err != nil && !errors.Is(err, unix.EPERM) {
				t.Fatal(err)
			}
			// Before, the place leaves open for which of several reasons it was.
			if !kernelAtLeast(5, 17) {
				tc.want = ""
			}
			wantBPF(t, source, tc.want)
		})
	}
}

// A listener that does not accept: a connection that its queue has no room for is
// discarded without a word, and the program of the root cgroup sees that.
func TestListenQueueFull(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	server := localOf(t, fd)
	source := openAt(t, arrivalBest, server.Port())
	const asks, room = 5, 2 // one more than the backlog
	for i := range asks {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(client)
		if err := unix.Connect(client, sockaddr(server)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
		waitQueued(t, fd, min(i+1, room))
	}
	refused, asked := map[uint16]bool{}, map[uint16]bool{}
	for _, p := range poll(t, source) {
		switch {
		case p.Kind == Delivered && p.Opens() && p.Dst == server:
			asked[p.Src.Port()] = true
			if p.ListenFull {
				refused[p.Src.Port()] = true
			}
		case p.ListenFull:
			t.Errorf("%+v", p)
		}
	}
	if source.exact() && (len(asked) != asks || len(refused) != asks-room) {
		t.Errorf("%d asked, %d had no room; expected %d and %d", len(asked), len(refused), asks, asks-room)
	}
}

// waitQueued waits until so many connections are in the queue of a listener: their last
// segment is processed in the background where the processor is busy.
func waitQueued(t *testing.T, fd, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		// Of a listener these are the connections that wait (tcp_get_info).
		if int(info.Unacked) >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections are in the queue, expected %d", info.Unacked, n)
		}
	}
}
