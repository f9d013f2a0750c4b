package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// The pods of the pages.
const (
	checkout = "checkout"
	cart     = "cart"
	loadgen  = "loadgenerator"
	jarJar   = "jar-jar-binks"
)

var clients = []string{checkout, cart, loadgen, jarJar}

// scene is what a page is about.
type scene struct {
	provoke func(context.Context, *lab.Lab) error
	lookups int // that it makes
}

// scenes by the name of the page.
var scenes = map[string]scene{
	"upstream-health":        {upstreamHealth, 12},
	"unsuccessful-responses": {unsuccessfulResponses, 12},
	"search-path":            {searchPath, 10},
	"missing-responses":      {missingResponses, 3},
	"silent-failure":         {silentFailure, 3},
	"conntrack-race":         {conntrackRace, 3},
	"black-hole":             {blackHole, 3},
	"conntrack-full":         {conntrackFull, 3},
	"large-answers":          {largeAnswers, 4},
	"clients":                {perClient, 700},
}

func pageNames() []string { return slices.Sorted(maps.Keys(scenes)) }

// resolve has a pod resolve a name with the C library, as programs do: A and AAAA
// at once, from one socket. What it cannot resolve is no error here.
func resolve(ctx context.Context, l *lab.Lab, pod, name, options string) error {
	ctx, cancel := context.WithTimeout(ctx, working)
	defer cancel()
	conf := fmt.Sprintf("nameserver %s\nsearch starwars.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 %s\n", lab.ServiceV4.Addr(), options)
	_, err := l.Run(ctx, lab.Spec{Name: "getent", Host: pod, Path: "getent", Args: []string{"ahosts", name}, ResolvConf: conf})
	if ctx.Err() == nil {
		return nil
	}
	return err
}

// ask makes one lookup; no answer is no error here.
func ask(ctx context.Context, l *lab.Lab, pod string, q lab.Query) error {
	_, err := l.Client(pod).Exchange(ctx, q)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// inParallel runs all at once and returns their errors.
func inParallel(all ...func() error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// everywhere sets how both upstreams treat a zone.
func everywhere(l *lab.Lab, zone string, b lab.Behaviour) {
	for i := range 2 {
		l.Upstream(i).Set(zone, b)
	}
}

// upstreamHealth: the first of two upstreams does not answer.
func upstreamHealth(ctx context.Context, l *lab.Lab) error {
	l.SilentUpstream(0, ".")
	var all []func() error
	for i := range 6 {
		all = append(all, func() error {
			return resolve(ctx, l, clients[i%2], fmt.Sprintf("shop%d.example.com.", i), "")
		})
	}
	return inParallel(all...)
}

// unsuccessfulResponses: one pod asks for what does not exist, another for what
// the upstreams cannot resolve, a third is fine.
func unsuccessfulResponses(ctx context.Context, l *lab.Lab) error {
	everywhere(l, "cluster.local.", lab.Behaviour{Rcode: dns.RcodeNameError})
	everywhere(l, "unknown-galaxy.", lab.Behaviour{Rcode: dns.RcodeNameError})
	everywhere(l, "payments.example.com.", lab.Behaviour{Rcode: dns.RcodeServerFailure})
	if err := resolve(ctx, l, cart, "www.example.com.", ""); err != nil {
		return err
	}
	if err := resolve(ctx, l, jarJar, "unknown-galaxy", ""); err != nil {
		return err
	}
	return resolve(ctx, l, checkout, "payments.example.com.", "")
}

// searchPath: a name outside the cluster, without a final dot and with one.
func searchPath(ctx context.Context, l *lab.Lab) error {
	everywhere(l, "cluster.local.", lab.Behaviour{Rcode: dns.RcodeNameError})
	if err := resolve(ctx, l, jarJar, "www.example.com", ""); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // another call
	return resolve(ctx, l, jarJar, "api.example.com.", "")
}

// missingResponses: a network policy drops what one pod asks.
func missingResponses(ctx context.Context, l *lab.Lab) error {
	if err := resolve(ctx, l, cart, "www.example.com.", ""); err != nil {
		return err
	}
	source := l.Host(jarJar).V4.String()
	undo, err := l.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Extra: []string{"-s", source}, Family: 4})
	if err != nil {
		return err
	}
	defer undo()
	return ask(ctx, l, jarJar, lab.Query{Name: "www.example.com.", Timeout: time.Second})
}

// silentFailure: what goes to CoreDNS vanishes, and no counter counts it.
func silentFailure(ctx context.Context, l *lab.Lab) error {
	if err := resolve(ctx, l, cart, "www.example.com.", ""); err != nil {
		return err
	}
	undo, err := l.VanishAt(lab.CoreDNS)
	if err != nil {
		return err
	}
	defer undo()
	return ask(ctx, l, checkout, lab.Query{Name: "www.example.com.", Timeout: time.Second})
}

// conntrackRace: of A and AAAA, connection tracking drops one; the C library asks
// for both again.
func conntrackRace(ctx context.Context, l *lab.Lab) error {
	undo, err := l.RaceLostBy("db.example.com.", dns.TypeA)
	if err != nil {
		return err
	}
	defer undo()
	return inParallel(
		func() error { return resolve(ctx, l, checkout, "db.example.com.", "timeout:5") },
		func() error {
			time.Sleep(time.Second)
			undo()
			return nil
		},
	)
}

// blackHole: a pod behind the Service is gone, and connection tracking still leads
// to it who uses its port again.
func blackHole(ctx context.Context, l *lab.Lab) error {
	const port = 40953
	old, err := l.AddPod("coredns-old")
	if err != nil {
		return err
	}
	if _, err := l.Serve("coredns-old", netip.AddrPortFrom(old.V4, 53)); err != nil {
		return err
	}
	pod := l.Host(lab.CoreDNS)
	to := func(v4 netip.Addr) error {
		return l.SetEndpoints(netip.AddrPortFrom(v4, 53), netip.AddrPortFrom(pod.V6, 53))
	}
	if err := to(old.V4); err != nil {
		return err
	}
	if err := ask(ctx, l, checkout, lab.Query{Name: "www.example.com.", LocalPort: port}); err != nil {
		return err
	}
	if err := errors.Join(to(pod.V4), l.RemovePod("coredns-old"), l.ForgetNeighbour(old.V4)); err != nil {
		return err
	}
	if err := ask(ctx, l, checkout, lab.Query{Name: "api.example.com.", LocalPort: port, Timeout: 4 * time.Second}); err != nil {
		return err
	}
	return ask(ctx, l, checkout, lab.Query{Name: "shop.example.com."})
}

// conntrackFull: the node tracks as many connections as it may.
func conntrackFull(ctx context.Context, l *lab.Lab) error {
	if err := resolve(ctx, l, cart, "www.example.com.", ""); err != nil {
		return err
	}
	undo, err := l.FillConntrack()
	if err != nil {
		return err
	}
	defer undo()
	return ask(ctx, l, checkout, lab.Query{Name: "www.example.com.", Timeout: time.Second})
}

// largeAnswers: a network policy lets DNS over UDP pass, and forgets TCP.
func largeAnswers(ctx context.Context, l *lab.Lab) error {
	everywhere(l, "large.example.com.", lab.Behaviour{Truncated: true})
	undo, err := l.DropAt(lab.NodeForward, lab.Match{Network: "tcp", Leg: lab.ClientLeg, Messages: lab.Queries})
	if err != nil {
		return err
	}
	defer undo()
	if err := resolve(ctx, l, checkout, "www.example.com.", ""); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, working)
	defer cancel()
	_, err = l.Run(ctx, lab.Spec{Name: "dig", Host: checkout, Path: "dig",
		Args: []string{"@" + lab.ServiceV4.Addr().String(), "+tries=1", "+time=2", "large.example.com", "TXT"}})
	if err == nil {
		return errors.New("dig has an answer")
	}
	return ctx.Err()
}

// perClient: a pod that asks much, one whose names take long, one that is not
// answered for every other name.
func perClient(ctx context.Context, l *lab.Lab) error {
	everywhere(l, "slow.example.com.", lab.Behaviour{Delay: 120 * time.Millisecond})
	everywhere(l, "lost.example.com.", lab.Behaviour{Silent: true})
	bulk := func(pod string, count int, rate float64, name func(i int) string) func() error {
		return func() error {
			for _, r := range l.Client(pod).Bulk(ctx, lab.Bulk{Count: count, Rate: rate, Query: func(i int) lab.Query {
				return lab.Query{Name: name(i), Timeout: time.Second}
			}}) {
				if r.Err != nil && !errors.Is(r.Err, os.ErrDeadlineExceeded) {
					return r.Err
				}
			}
			return nil
		}
	}
	return inParallel(
		bulk(loadgen, 600, 200, func(i int) string { return fmt.Sprintf("n%d.example.com.", i%50) }),
		bulk(checkout, 60, 20, func(i int) string { return fmt.Sprintf("n%d.slow.example.com.", i) }),
		bulk(jarJar, 40, 20, func(i int) string { return fmt.Sprintf("n%d.%s.example.com.", i, []string{"www", "lost"}[i%2]) }),
	)
}
