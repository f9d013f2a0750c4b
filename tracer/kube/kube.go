// Package kube enriches records: it names the pods, workloads and Services behind their
// addresses and cgroups, from the Kubernetes API.
//
// It watches the pods of its own node, and of all Services and EndpointSlices those that
// may speak DNS. Nothing waits for the API server: what is unknown when a record is named
// stays unknown. What was known stays known while the API server is down, and a deleted
// pod keeps its name for as long as records of it may still come.
//
// A pod is known from the moment that it is bound to the node, before its first process
// runs: the cgroup of a packet's sender has the pod's UID in its path. Addresses are weaker,
// because they are reused: the pod that had one at the time of the record counts.
package kube

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/dnstrace/dnstrace/trace"
)

// Config of a Cluster.
type Config struct {
	API  *rest.Config // where the API server is, as Find returned it
	Node string       // whose pods are watched; NodeName gives this one's
	// Ports are those of DNS servers: Services with none of them, and no UDP port, are
	// ignored.
	Ports []uint16
	// Servers is called with the addresses of the DNS servers to which a Service leads from one
	// of Ports, whenever they change: all of them, each once. It must not block. May be nil.
	Servers func([]netip.AddrPort)
	// Changed is called with a message whenever the API server is lost or found again. It must
	// not block. May be nil.
	Changed func(state string)
}

// Cluster is what is known of the cluster. Its methods may be called from any
// goroutine.
type Cluster struct {
	cfg     Config
	sources []*source
	now     func() time.Time

	mu        sync.RWMutex
	pods      *pods
	services  *services
	endpoints *endpoints
	servers   servers
	stale     chan struct{} // servers are not those of services and endpoints
}

// New returns an empty Cluster. The error says what is wrong with cfg.API; an API server
// that does not answer is no error.
func New(cfg Config) (*Cluster, error) {
	c := newCluster(cfg, time.Now)
	lists, err := dial(cfg.API, cfg.Node)
	if err != nil {
		return nil, err
	}
	c.watch(lists)
	return c, nil
}

func newCluster(cfg Config, now func() time.Time) *Cluster {
	return &Cluster{cfg: cfg, now: now, pods: newPods(), services: newServices(cfg.Ports), endpoints: newEndpoints(cfg.Ports),
		stale: make(chan struct{}, 1)}
}

// Run watches the API server until ctx ends, with pauses of up to half a minute
// while it does not answer.
func (c *Cluster) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { c.findServers(ctx) })
	for _, s := range c.sources {
		group.Go(func() { s.run(ctx) })
	}
	group.Wait()
}

// State is how far what is known can be relied on.
type State struct {
	Synced    bool   // everything was listed once
	Err       string // why the API server cannot be asked now; empty: it can
	Pods      int    // on this node
	Services  int    // that may speak DNS
	Endpoints int    // of such Services
	Failures  uint64 // requests that failed, since the start
}

// State returns the state as of now.
func (c *Cluster) State() State {
	c.mu.RLock()
	st := State{Synced: true, Pods: c.pods.count(), Services: len(c.services.byKey), Endpoints: c.endpoints.addrs()}
	c.mu.RUnlock()
	for _, s := range c.sources {
		synced, failures, err := s.health()
		st.Synced = st.Synced && synced
		st.Failures += failures
		if err != nil {
			st.Err = reason(err)
		}
	}
	return st
}

// reliable tells whether what is known of Services and their endpoints is what the
// API server knows.
func (c *Cluster) reliable() bool {
	for _, s := range c.sources {
		if synced, _, err := s.health(); !synced || err != nil {
			return false
		}
	}
	return true
}

// Exchange puts names into a record that this node made.
func (c *Cluster) Exchange(ex *trace.Exchange) {
	reliable := c.reliable()
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, end := range [...]**trace.Endpoint{&ex.Client, &ex.Server} {
		if *end != nil { // which other records have, too
			e := **end
			*end = &e
		}
	}
	c.nameClient(ex)
	c.nameServer(ex, reliable)
}

// Trace puts names into a trace of which only the server's record is known.
func (c *Cluster) Trace(t *trace.Trace) {
	q := t.Query
	if t.Exchange != nil || q == nil {
		return
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	t.Client = c.byAddress(t.Client, q.ClientIP, q.Time)
	t.Server = c.byAddress(t.Server, q.ServerIP, q.Time)
}
