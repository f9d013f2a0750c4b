package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// Hosts of the lab beside its own.
const (
	clientPod   = "client"
	echoPod     = "echo"
	recordedPod = "recorded"
)

// names is how many names CoreDNS is asked for, and has cached.
const names = 1000

// cacheTTL is longer than any run, in seconds.
const cacheTTL = 3600

// rig is the node with its servers, and who asks them.
type rig struct {
	*lab.Lab
	dnstrace, against string // the builds
	port              uint16 // the newest source port
	netns             bool   // only this lab's namespaces are observed
}

// firstPort is below the ports that the kernel chooses from. Every socket gets a
// port of its own: connection tracking would send what comes from a port used
// before to the server that answered then.
const firstPort = 1024

// newRig builds the node, starts CoreDNS and the echo server, and fills the
// cache. The caller must close it.
func newRig(ctx context.Context, cfg config) (r *rig, err error) {
	l, err := lab.Build(lab.Config{Clients: []string{clientPod, echoPod, recordedPod}, Upstreams: 1, CoreDNS: cfg.coredns, Dnstrace: cfg.dnstrace})
	if err != nil {
		return nil, err
	}
	r = &rig{Lab: l, dnstrace: cfg.dnstrace, against: cfg.against, port: firstPort, netns: cfg.netns}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	l.Upstream(0).Set(".", lab.Behaviour{TTL: cacheTTL})
	l.Upstream(0).Set(failing.zone, lab.Behaviour{Rcode: failing.rcode})
	// With the plugins of the Corefile that comes with Kubernetes, as far as they see queries.
	corefile := ". {\n errors\n prometheus 127.0.0.1:0\n loadbalance\n%s cache %d\n forward . %s\n}\n"
	if _, err := l.StartCoreDNS(fmt.Sprintf(corefile, "", cacheTTL, l.Upstream(0).V4())); err != nil {
		return nil, err
	}
	records := fmt.Sprintf(" dnstrace {\n  output unix %s\n }\n", l.RecordSocket())
	if _, err := l.StartCoreDNSOn(recordedPod, fmt.Sprintf(corefile, records, cacheTTL, l.Upstream(0).V4())); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("path of this program: %w", err)
	}
	_, err = l.Start(lab.Spec{Name: echoRole, Host: echoPod, Path: self, Args: []string{echoRole}, Ready: lab.ReadyLine(readyLine)})
	if err != nil {
		return nil, err
	}
	// The first time to fill the cache, the second to warm up.
	for range 2 {
		for _, s := range []server{cached, echo, recorded} {
			if _, err := r.closedLoop(ctx, s, 2*names); err != nil {
				return nil, fmt.Errorf("warm up: %w", err)
			}
		}
	}
	return r, nil
}

func (r *rig) close() error { return errors.Join(r.Close(), os.RemoveAll(r.Dir())) }

// server is who answers behind the Service address.
type server struct {
	name string
	host string
	// names is how many names are asked for, in turn.
	names int
	zone  string // that they are below; empty: the usual one
	rcode int    // of every answer
}

var (
	cached = server{name: "CoreDNS answering from cache", host: lab.CoreDNS, names: names}
	// The echo server is asked for another name every time, as far as eight digits go.
	echo = server{name: "echo server", host: echoPod, names: 1e8}
	// recorded is CoreDNS with the plugin, whose records the tracer gets, answering from cache.
	recorded = server{name: "CoreDNS with records", host: recordedPod, names: names}
	hot      = server{name: "one name", host: recordedPod, names: 1}
	// failing is the same CoreDNS, whose upstream fails for these names.
	failing = server{name: "names that fail", host: recordedPod, names: 1e8, zone: "fails.test.", rcode: dns.RcodeServerFailure}
)

// serve makes s the endpoint of the Service.
func (r *rig) serve(s server) error {
	return r.SetEndpoints(netip.AddrPortFrom(r.Host(s.host).V4, 53))
}

// pause waits, unless the run is to end.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
