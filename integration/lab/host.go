package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Host is one namespace of the lab: the node, a pod, or the upstream.
type Host struct {
	// Name as the lab knows it, for example client-a.
	Name string
	// Netns is its name under /run/netns, for example dt1234-1-client-a.
	Netns string
	// V4 and V6 are its addresses; of the node, those on the bridge; of the
	// upstream, those of the first server.
	V4, V6 netip.Addr

	ns    *namespace
	hasty atomic.Int32 // how many faults make its clients close early
}

// Do runs f on a thread inside the host's network namespace: sockets opened by
// f belong to the host. f must not call t.FailNow or anything that does, and
// what it opens is the caller's to close.
func (h *Host) Do(f func() error) error { return h.ns.do(f) }

// Inode is the number of the network namespace, as in /proc/PID/ns/net and as
// kernel events carry it.
func (h *Host) Inode() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(netnsDir, h.Netns), &st)
	return st.Ino, err
}

// remove kills what runs in the host and removes its namespace.
func (h *Host) remove() error {
	return errors.Join(killInside(filepath.Join(netnsDir, h.Netns)), h.ns.delete())
}

// Host returns a host by name: Node, CoreDNS, Upstream or a client pod. It
// panics if there is none, which is a mistake in the test.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.hosts[name]
	if !ok {
		panic(fmt.Sprintf("lab has no host %q", name))
	}
	return h
}

// addHost makes an empty host: a namespace with its loopback device up.
func (l *Lab) addHost(name string, v4, v6 netip.Addr) (*Host, error) {
	l.mu.Lock()
	_, taken := l.hosts[name]
	l.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("the lab has a host %q already", name)
	}
	ns, err := newNamespace(l.prefix+name, l.home)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Netns: ns.name, V4: v4, V6: v6, ns: ns}
	l.mu.Lock()
	l.hosts[name] = h
	l.mu.Unlock()
	if err := h.sysctl(sysctlsEverywhere...); err != nil {
		return nil, err
	}
	return h, h.up("lo")
}

// setting is one line of sysctl.conf.
type setting struct{ path, value string }

// sysctlsEverywhere make IPv6 addresses usable at once (no duplicate address
// detection), and keep router advertisements from adding others.
var sysctlsEverywhere = []setting{
	{"net/ipv6/conf/all/disable_ipv6", "0"},
	{"net/ipv6/conf/default/disable_ipv6", "0"},
	{"net/ipv6/conf/all/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
}

// sysctl writes settings of the host's namespace.
func (h *Host) sysctl(settings ...setting) error {
	return h.Do(func() error {
		for _, s := range settings {
			// /proc/sys/net shows the namespace of the thread that opens it.
			if err := os.WriteFile(filepath.Join("/proc/sys", s.path), []byte(s.value), 0o644); err != nil {
				return fmt.Errorf("sysctl in %s: %w", h.Name, err)
			}
		}
		return nil
	})
}
