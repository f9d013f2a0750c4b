package onkernel

import (
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// pod makes a network namespace with one address, joined to the tests' own by a
// veth, whose other end has the address that the pod's packets are routed to.
func pod(t *testing.T, name, address, gateway string) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	aside(t, func() (err error) {
		ns, err = netns.New()
		return err
	})
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)})
	if err != nil {
		t.Fatal(err)
	}
	addAddress(t, name, gateway+"/24")
	inside(t, ns, func() error {
		up(t, "lo")
		addAddress(t, "eth0", address+"/24")
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)})
	})
	return ns
}

func addAddress(t *testing.T, device, address string) {
	t.Helper()
	up(t, device)
	link, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		t.Fatal(err)
	}
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD // usable at once
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
}

// inside runs f in a namespace; sockets that it makes stay there.
func inside(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	aside(t, func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

// aside runs f on a thread that ends with it: f may change its namespace.
func aside(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func sysctl(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}
