package capture

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNewNamespace runs f on a thread in a network namespace with nothing but a
// loopback device that is up. The thread ends with it.
func inNewNamespace(t *testing.T, f func() error) {
	t.Helper()
	if err := <-goInNewNamespace(f); err != nil {
		t.Fatal(err)
	}
}

// goInNewNamespace does not wait for f; what it returns tells when f is done.
func goInNewNamespace(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			return f()
		}()
	}()
	return done
}

// A drop of a packet that is not tracked says how many entries its namespace has,
// and may have, as /proc does; nothing where the kernel has no connection tracking.
func TestDropTellsHowFullConntrackIs(t *testing.T) {
	var netns uint32
	var most string
	var source *Source
	inNewNamespace(t, func() error {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		closed := conn.LocalAddr().(*net.UDPAddr)
		if err := conn.Close(); err != nil {
			return err
		}
		if netns, err = inodeOf("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		most = strings.TrimSpace(string(text))
		if source, err = openDevices(Config{Ports: []uint16{uint16(closed.Port)}}); err != nil {
			return err
		}
		sender, err := net.DialUDP("udp4", nil, closed)
		if err != nil {
			return err
		}
		defer sender.Close()
		_, err = sender.Write(make([]byte, 12))
		return err
	})
	defer source.Close()
	for _, p := range poll(t, source) {
		if p.Kind != Drop || p.NetNS != netns {
			continue
		}
		switch {
		case most == "" && p.Table != nil:
			t.Errorf("%+v where there is no connection tracking", p.Table)
		case most != "" && (p.Table == nil || p.Table.Count != 0 || strconv.Itoa(int(p.Table.Max)) != most):
			t.Errorf("%+v, expected 0 of %s", p.Table, most)
		}
		t.Logf("%q of connection tracking's maximum", most)
		return
	}
	t.Error("no drop")
}
