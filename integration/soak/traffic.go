package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// kind is a sort of lookup, its share of all, in parts of 100, and how it must end
// whether somebody watches or not.
type kind struct {
	name  string
	share int
	query func(i int) lab.Query
	ends  ending
}

// ending tells whether a lookup ended as it must.
type ending func(q lab.Query, r lab.Result) bool

// addressed wants the address that the upstream has for the name, and no other.
func addressed(q lab.Query, r lab.Result) bool {
	if r.Answer == nil || r.Answer.Rcode != dns.RcodeSuccess || len(r.Answer.Answer) != 1 {
		return false
	}
	switch rr := r.Answer.Answer[0].(type) {
	case *dns.A:
		return q.Type != dns.TypeAAAA && rr.A.Equal(lab.AddrA(q.Name).AsSlice())
	case *dns.AAAA:
		return q.Type == dns.TypeAAAA && rr.AAAA.Equal(lab.AddrAAAA(q.Name).AsSlice())
	}
	return false
}

// refused wants an answer of this response code.
func refused(rcode int) ending {
	return func(_ lab.Query, r lab.Result) bool { return r.Answer != nil && r.Answer.Rcode == rcode }
}

// unanswered wants none.
func unanswered(_ lab.Query, r lab.Result) bool { return r.Answer == nil }

// givenUp wants none, or that CoreDNS says that its upstream is silent, as its cache
// does for some seconds after the first lookup.
func givenUp(q lab.Query, r lab.Result) bool {
	return unanswered(q, r) || refused(dns.RcodeServerFailure)(q, r)
}

// clientPatience is less than CoreDNS's, as resolvers with `timeout:1` have it.
const clientPatience = time.Second

// popular is how many names are asked for over and over, and answered from cache.
const popular = 20

var kinds = []kind{
	{"cache hit", 45, func(i int) lab.Query { return lab.Query{Name: fmt.Sprintf("popular%d%s", i%popular, suffix)} }, addressed},
	{"cache miss", 24, func(i int) lab.Query { return lab.Query{Name: fmt.Sprintf("n%d%s", i, suffix)} }, addressed},
	{"NXDOMAIN", 10, func(i int) lab.Query { return lab.Query{Name: fmt.Sprintf("n%d.%s", i, absentZone)} }, refused(dns.RcodeNameError)},
	{"SERVFAIL", 3, func(i int) lab.Query { return lab.Query{Name: fmt.Sprintf("n%d.%s", i, failedZone)} }, refused(dns.RcodeServerFailure)},
	{"TCP", 8, func(i int) lab.Query { return lab.Query{Name: fmt.Sprintf("t%d%s", i, suffix), Network: "tcp"} }, addressed},
	{"IPv6, AAAA", 8, func(i int) lab.Query {
		return lab.Query{Name: fmt.Sprintf("six%d%s", i, suffix), Type: dns.TypeAAAA, Server: lab.ServiceV6}
	}, addressed},
	{"upstream silent", 1, func(int) lab.Query { return lab.Query{Name: silentName, Timeout: clientPatience} }, givenUp},
	{"dropped", 1, func(int) lab.Query { return lab.Query{Name: droppedName, Timeout: clientPatience} }, unanswered},
}

// draw returns a kind by its share.
func draw() *kind {
	n := rand.IntN(100)
	for i := range kinds {
		if n -= kinds[i].share; n < 0 {
			return &kinds[i]
		}
	}
	return &kinds[0]
}

// maxInFlight bounds the sockets that wait; a silent upstream holds one for a second.
const maxInFlight = 200

// traffic lets clients ask until the time is over, and waits for their answers.
func (n *node) traffic(ctx context.Context, cfg config) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.time)
	defer cancel()
	podsDone := make(chan error, 1)
	go func() { podsDone <- n.pods(ctx, cfg.time) }()

	var asking sync.WaitGroup
	room := make(chan struct{}, maxInFlight)
	tick := time.NewTicker(time.Duration(float64(time.Second) / cfg.rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			asking.Wait()
			return <-podsDone
		case <-tick.C:
		}
		room <- struct{}{}
		client := n.Client([]string{"client-a", "client-b"}[i%2])
		asking.Go(func() {
			n.lookup(client, draw(), i, func() bool { return false })
			<-room
		})
	}
}

// lookup makes one lookup, and enters it. It does not end with the context: a
// client that goes away is another kind of lookup.
func (n *node) lookup(client *lab.Client, k *kind, i int, left func() bool) {
	q := k.query(i)
	result, _ := client.Exchange(context.Background(), q)
	gone := left()
	n.ledger.ask(k.name, result, gone || k.ends(q, result), gone)
}

// Pods: the lab has addresses for some 240 of them, and each asks a few times.
const (
	maxPods     = 240
	leastPause  = 3 * time.Second
	podsLookups = 5
)

// pods makes pods that ask and go; every other one goes in the middle of its last
// lookups, with its namespace.
func (n *node) pods(ctx context.Context, whole time.Duration) error {
	pause := max(leastPause, whole/maxPods)
	for i := 0; ; i++ {
		if !sleep(ctx, pause) {
			return nil
		}
		name := fmt.Sprintf("pod-%d", i)
		if _, err := n.AddPod(name); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
		if err := n.livePod(name, i); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
	}
}

func (n *node) livePod(name string, i int) error {
	client := n.Client(name)
	for j := range podsLookups {
		n.lookup(client, &kinds[1], podNumber(i, j), func() bool { return false })
	}
	if i%2 == 0 {
		return n.RemovePod(name)
	}
	var gone atomic.Bool
	var asking sync.WaitGroup
	silent := &kind{name: "pod deleted meanwhile", query: kinds[len(kinds)-2].query, ends: givenUp}
	for j := range podsLookups {
		asking.Go(func() { n.lookup(client, silent, j, gone.Load) })
	}
	// Their queries are on their way, and nobody answers them.
	time.Sleep(clientPatience / 5)
	gone.Store(true)
	err := n.RemovePod(name)
	asking.Wait()
	return err
}

// podNumber gives the lookups of pods names of their own.
func podNumber(pod, lookup int) int { return 1_000_000_000 + pod*podsLookups + lookup }

// sleep tells whether the time passed before the context's end.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
