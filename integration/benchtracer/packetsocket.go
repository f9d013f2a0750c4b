package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	packetSocketsRole = "packet-sockets"
	dnsPort           = 53
	// packetBuffer is what tcpdump takes for itself by default.
	packetBuffer = 2 << 20
	// snapLength is how many bytes of a packet are read.
	snapLength = 2048
)

// readPacketSockets opens an AF_PACKET socket in each of the named network
// namespaces, and reads what its filter lets pass, and forgets it, until it is
// stopped. Then it says how many packets that were.
func readPacketSockets(namespaces []string) error {
	var fds []int
	for _, name := range namespaces {
		fd, err := openPacketSocket(name)
		if err != nil {
			return fmt.Errorf("packet socket in %s: %w", name, err)
		}
		fds = append(fds, fd)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var seen atomic.Int64
	failed := make(chan error, len(fds))
	for _, fd := range fds {
		go func() { failed <- readPackets(fd, &seen) }()
	}
	if _, err := fmt.Fprintln(os.Stderr, readyLine); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	var dropped uint32
	for _, fd := range fds {
		// Packets counts those that were dropped as well, and both are set to 0 by reading.
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return fmt.Errorf("statistics of a packet socket: %w", err)
		}
		dropped += stats.Drops
	}
	_, err := fmt.Fprintf(os.Stderr, "%d packets captured\n%d packets dropped by kernel\n", seen.Load(), dropped)
	return err
}

// openPacketSocket opens a socket that gets what passes the devices of a network
// namespace from or to the DNS port.
func openPacketSocket(namespace string) (int, error) {
	// A thread that cannot be brought back ends with the process.
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return -1, err
	}
	defer home.Close()
	there, err := netns.GetFromName(namespace)
	if err != nil {
		return -1, err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return -1, err
	}
	fd, err := filteredSocket()
	if err := errors.Join(err, netns.Set(home)); err != nil {
		return -1, err
	}
	runtime.UnlockOSThread()
	return fd, nil
}

// filteredSocket opens the socket with no protocol, so that nothing arrives
// before the filter is there. Datagram sockets start at the network header.
func filteredSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	filter, err := bpf.Assemble(portFilter())
	if err != nil {
		return -1, err
	}
	var program []unix.SockFilter
	for _, ins := range filter {
		program = append(program, unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K})
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}),
	)
	return fd, err
}

// networkOrder returns a number whose bytes in memory are those of n in network order.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// portFilter lets IPv4 and IPv6 packets pass, UDP and TCP, without extension
// headers and fragments, with the DNS port at either end.
func portFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x60, SkipTrue: 9},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x40, SkipTrue: 16},
		// IPv4: the ports are behind a header of some length.
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 13},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: dnsPort, SkipTrue: 9},
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: dnsPort, SkipTrue: 7, SkipFalse: 8},
		// IPv6
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 40, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: dnsPort, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 42, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: dnsPort, SkipTrue: 1},
		bpf.RetConstant{Val: snapLength},
		bpf.RetConstant{Val: 0},
	}
}

func readPackets(fd int, seen *atomic.Int64) error {
	var buf [snapLength]byte
	for {
		if _, err := retry(func() (int, error) { return unix.Read(fd, buf[:]) }); err != nil {
			return fmt.Errorf("read packets: %w", err)
		}
		seen.Add(1)
	}
}
