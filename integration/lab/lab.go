package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
)

// Names of the hosts that every lab has. Clients are named by Config.Clients.
const (
	Node     = "node"     // the root namespace of the little node
	CoreDNS  = "coredns"  // the pod behind the Service address
	Upstream = "upstream" // beyond the node; holds all upstream addresses
)

// The Service address: translated to the CoreDNS pod on its way through Node.
var (
	ServiceV4 = netip.MustParseAddrPort("10.96.0.10:53")
	ServiceV6 = netip.MustParseAddrPort("[fd00:10:96::a]:53")
)

// Config says what to build. The zero value is a good lab.
type Config struct {
	// Clients names the client pods; default client-a and client-b.
	Clients []string
	// Upstreams is the number of upstream servers, each with an IPv4 and an
	// IPv6 address of its own; default 2, at most 40.
	Upstreams int
	// MasqueradeEgress gives pods' traffic to the upstream network the node's
	// address, as kubenet and flannel do. By default the upstream sees the
	// pod's own address, as where pods are routable (Calico without SNAT).
	MasqueradeEgress bool
	// Nftables makes the Service as kube-proxy does in nftables mode, by maps of
	// a table of its own, and not in iptables mode. It needs the program nft.
	Nftables bool
	// MasqueradeAll gives queries to the Service the node's address on the way to
	// the pod, as kube-proxy does with --masquerade-all. With Nftables only; see
	// [Lab.MasqueradeService] for iptables.
	MasqueradeAll bool
	// Topology is how the node carries packets; the zero value is one bridge.
	Topology Topology
	// CoreDNS and Dnstrace are the paths of the binaries; default bin/coredns
	// and bin/dnstrace of the module that holds the working directory. They
	// are looked for only when started.
	CoreDNS, Dnstrace string
}

// Lab is one node with its pods and upstream. Its methods may be called from
// several goroutines.
type Lab struct {
	cfg    Config
	prefix string         // of its namespaces' names
	dir    string         // for Corefiles, sockets, output
	home   netns.NsHandle // the namespace that the lab was built from

	mu        sync.Mutex
	hosts     map[string]*Host
	octet     byte // last octet of the newest pod's address
	servers   []*Server
	upstreams []*Server
	processes []*Process
	counters  map[string]func() (uint64, error) // of the topology
	endpoints *ebpf.Variable                    // not 0: an eBPF program refuses what is sent to the Service
	closers   []func() error                    // what Close undoes, newest first
	errs      []error                           // found while nobody was looking; Close returns them
	closed    bool
}

// built counts the labs of this process, to give each a prefix of its own.
var built atomic.Int64

// New builds a lab for a test, which fails at once where that is impossible
// (not root, iptables missing, …). When the test ends, however it ends, the lab
// is removed, and the test fails if a process of the lab ended unexpectedly; if
// the test failed, the output of the lab's processes is logged.
func New(tb testing.TB, cfg Config) *Lab {
	tb.Helper()
	l, err := Build(cfg)
	if err != nil {
		tb.Fatalf("lab: %v", err)
	}
	tb.Cleanup(func() {
		err := l.Close()
		if err != nil {
			tb.Errorf("lab: %v", err)
		}
		if tb.Failed() {
			tb.Log(l.Outputs())
		}
		if err := os.RemoveAll(l.dir); err != nil {
			tb.Errorf("lab: %v", err)
		}
	})
	return l
}

// Build builds a lab where there is no test. It first removes what killed
// processes left behind. The caller owns the lab and must Close it.
func Build(cfg Config) (*Lab, error) {
	if err := preflight(); err != nil {
		return nil, err
	}
	if err := Sweep(); err != nil {
		return nil, fmt.Errorf("remove leftovers of earlier labs: %w", err)
	}
	if cfg.Clients == nil {
		cfg.Clients = []string{"client-a", "client-b"}
	}
	if cfg.Upstreams == 0 {
		cfg.Upstreams = 2
	}
	if cfg.Upstreams < 0 || cfg.Upstreams > maxUpstreams {
		return nil, fmt.Errorf("Config.Upstreams is %d: want 1 to %d", cfg.Upstreams, maxUpstreams)
	}
	cfg.Topology = cfg.Topology.withDefaults()
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	l := &Lab{
		cfg:      cfg,
		prefix:   fmt.Sprintf("dt%d-%d-", os.Getpid(), built.Add(1)),
		home:     home,
		hosts:    make(map[string]*Host),
		counters: make(map[string]func() (uint64, error)),
		octet:    firstClientOctet - 1,
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(err, l.Close(), os.RemoveAll(l.dir))
	}
	return l, nil
}

func (l *Lab) build() error {
	if err := l.makeDir(); err != nil {
		return err
	}
	for _, step := range []func() error{l.buildNode, l.buildUpstream, l.buildServer, l.service} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, name := range l.cfg.Clients {
		if _, err := l.AddPod(name); err != nil {
			return err
		}
	}
	if err := l.cfg.Topology.finish(l); err != nil {
		return err
	}
	return l.startUpstreams()
}

func (l *Lab) service() error { return l.cfg.Topology.service(l) }

func (l *Lab) makeDir() error {
	for _, tmp := range tempDirs() {
		dir := filepath.Join(tmp, l.prefix+"files")
		if err := os.Mkdir(dir, 0o755); err == nil {
			l.dir = dir
			return nil
		}
	}
	return fmt.Errorf("no temporary folder could be made in any of %q", tempDirs())
}

// startUpstreams serves DNS on every upstream address.
func (l *Lab) startUpstreams() error {
	for i := range l.cfg.Upstreams {
		v4, v6 := upstreamAddrs(i)
		s, err := l.Serve(Upstream, netip.AddrPortFrom(v4, 53), netip.AddrPortFrom(v6, 53))
		if err != nil {
			return err
		}
		l.upstreams = append(l.upstreams, s)
	}
	return nil
}

// Close stops the lab's processes and servers and removes everything that the
// lab made; New does it by itself. It returns what went wrong meanwhile: an
// unexpected end of a process, with the end of its output, or a fault that
// could not be undone. A second Close does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	processes, servers, hosts, closers := l.processes, l.servers, l.hosts, l.closers
	l.mu.Unlock()

	// Newest first: what came later may depend on what came before.
	for i := len(processes) - 1; i >= 0; i-- {
		l.report(processes[i].Stop())
	}
	for _, s := range servers {
		l.report(s.Stop())
	}
	for i := len(closers) - 1; i >= 0; i-- {
		l.report(closers[i]())
	}
	for _, h := range hosts {
		l.report(h.remove())
	}
	l.report(l.home.Close())
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}

// atClose lets Close call f when the lab's processes have ended.
func (l *Lab) atClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// report keeps an error that has nobody to return to, for Close.
func (l *Lab) report(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// Dir is a folder for files of the lab, with a short path. New removes it when
// the test ends; after Build the caller may keep it or remove it.
func (l *Lab) Dir() string { return l.dir }

// RecordSocket is the path of the unix datagram socket on which `dnstrace run`
// is to listen, and to which CoreDNS is to write (`output unix PATH`).
func (l *Lab) RecordSocket() string { return filepath.Join(l.dir, "records.sock") }

// APISocket is the path of the unix socket of dnstrace's local API.
func (l *Lab) APISocket() string { return filepath.Join(l.dir, "api.sock") }
