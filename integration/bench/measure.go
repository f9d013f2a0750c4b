package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	framestream "github.com/farsightsec/golang-framestream"
	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/figures"
)

// settle is how long a round waits for what the servers do after the answers:
// their writers work in batches.
const settle = 200 * time.Millisecond

// bench is what the runs share, and what they measured.
type bench struct {
	cfg      config
	dir      string
	server   *dns.Server
	upstream string
	tap      string // path of the dnstap socket
	listener net.Listener
	blocked  *blockedOutputs
	// cost is the CPU time a query, by workload and variant, one a round.
	cost map[string]map[string][]time.Duration
	// took are the latencies of a round, sorted, likewise.
	took map[string]map[string][][]time.Duration
	// allocated is what was allocated, by workload and variant.
	allocated map[string]map[string]allocations
}

func newBench(cfg config, dir string) (*bench, error) {
	srv, err := startUpstream()
	if err != nil {
		return nil, err
	}
	b := &bench{cfg: cfg, dir: dir, server: srv, upstream: srv.PacketConn.LocalAddr().String(),
		tap: filepath.Join(dir, "dnstap.sock"), cost: make(map[string]map[string][]time.Duration),
		took: make(map[string]map[string][][]time.Duration), allocated: make(map[string]map[string]allocations)}
	if b.blocked, err = newBlockedOutputs(dir); err != nil {
		return nil, err
	}
	if b.listener, err = net.Listen("unix", b.tap); err != nil {
		return nil, err
	}
	go b.readTap()
	return b, nil
}

// readTap reads what the dnstap plugin sends, and forgets it.
func (b *bench) readTap() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			d, err := framestream.NewDecoder(conn, &framestream.DecoderOptions{
				ContentType: []byte("protobuf:dnstap.Dnstap"), Bidirectional: true})
			for err == nil {
				_, err = d.Decode()
			}
		}()
	}
}

func (b *bench) close() {
	_ = b.listener.Close()
	b.blocked.close()
	_ = b.server.Shutdown()
}

// measure runs all variants and asks them in turns, until the rounds are done
// or the time is over. It starts them anew several times: how a process
// happens to lie in memory makes it some percent faster or slower than the
// same program started again.
func (b *bench) measure(w workload, until time.Time) error {
	b.cost[w.name] = make(map[string][]time.Duration)
	b.took[w.name] = make(map[string][][]time.Duration)
	b.allocated[w.name] = make(map[string]allocations)
	for start := range b.cfg.starts {
		rounds := b.cfg.rounds / b.cfg.starts
		if start < b.cfg.rounds%b.cfg.starts {
			rounds++
		}
		share := time.Until(until) / time.Duration(b.cfg.starts-start)
		if err := b.measureStart(w, rounds, time.Now().Add(share)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) measureStart(w workload, rounds int, until time.Time) (err error) {
	all := b.variants()
	servers := make([]*server, len(all))
	defer func() {
		for i, s := range servers {
			if s != nil {
				err = errors.Join(err, s.stop(), b.checkRecords(all[i], w, s.asked))
			}
		}
	}()
	for i, v := range all {
		if servers[i], err = b.start(v); err != nil {
			return err
		}
		if _, err := servers[i].ask(w, max(w.queries, clients*names)); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
	}
	time.Sleep(settle)
	stop, err := b.countAllocations(w, servers)
	if err != nil {
		return err
	}
	for n := 0; n < rounds && (n == 0 || time.Now().Before(until)); n++ {
		if err := b.round(w, n, servers); err != nil {
			return err
		}
	}
	return stop()
}

// countAllocations counts the allocations of the servers from now until stop. Where
// they are minimal they do not tell.
func (b *bench) countAllocations(w workload, servers []*server) (stop func() error, err error) {
	if b.cfg.minimal {
		return func() error { return nil }, nil
	}
	all := b.variants()
	before, asked := make([]float64, len(all)), make([]int, len(all))
	for i, s := range servers {
		if before[i], err = s.mallocs(); err != nil {
			return nil, fmt.Errorf("%s: %w", all[i].name, err)
		}
		asked[i] = s.asked
	}
	return func() error {
		for i, s := range servers {
			after, err := s.mallocs()
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			sum := b.allocated[w.name][all[i].name]
			sum.count += after - before[i]
			sum.queries += s.asked - asked[i]
			b.allocated[w.name][all[i].name] = sum
			if all[i].name == blockedName {
				if err := s.checkBlocked(); err != nil {
					return err
				}
			}
		}
		return nil
	}, nil
}

// round gives every variant a turn; the first of them is another one each time.
func (b *bench) round(w workload, number int, servers []*server) error {
	all := b.variants()
	before := make([]time.Duration, len(all))
	for i := range all {
		turn := (i + number) % len(all)
		var err error
		if before[turn], err = servers[turn].cpu(); err != nil {
			return err
		}
		name := all[turn].name
		took, err := servers[turn].ask(w, w.queries)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		slices.Sort(took)
		b.took[w.name][name] = append(b.took[w.name][name], took)
	}
	time.Sleep(settle)
	for i, v := range all {
		after, err := servers[i].cpu()
		if err != nil {
			return err
		}
		cost := (after - before[i]) / time.Duration(w.sent(w.queries))
		b.cost[w.name][v.name] = append(b.cost[w.name][v.name], cost)
	}
	return nil
}

// ask sends n queries and counts them.
func (s *server) ask(w workload, n int) ([]time.Duration, error) {
	s.asked += w.sent(n)
	return w.ask(s.addr, n)
}

// sent is how many queries ask(n) sends.
func (w workload) sent(n int) int { return (n + clients - 1) / clients * clients }

// checkRecords makes sure that dnstrace wrote what it was measured at.
func (b *bench) checkRecords(v variant, w workload, asked int) error {
	if v.records == "" {
		return nil
	}
	content, err := os.ReadFile(v.records)
	if err != nil {
		return err
	}
	lines := bytes.Count(content, []byte("\n"))
	if v.all && lines < asked || !v.all && (lines == 0 || lines > asked/10) {
		return fmt.Errorf("%s, %s: %d records for %d queries", w.name, v.name, lines, asked)
	}
	return os.Remove(v.records)
}

// Goals of what dnstrace costs, relative to vanilla: each query recorded, one in a
// hundred recorded, and the allocations that it adds.
const (
	goalCached, goalForwarded = 1.10, 1.08
	// The same relative to a plugin that only makes room on the stack.
	goalCachedNoop, goalForwardedNoop = 1.15, 1.10
	goalSampled                       = 1.03
	goalAllocations                   = 2
	// goalLog is of the CPU time relative to that with plain log.
	goalLog = 1
)

// goals returns the goals of a variant: of its CPU time and of its allocations.
func goals(w, variant string) (ratio, allocations figures.Goal) {
	switch {
	case variant == sampledName:
		return figures.AtMost(goalSampled), figures.Goal{}
	case variant != tracedName:
		return figures.Goal{}, figures.Goal{}
	case w == cachedName:
		return figures.AtMost(goalCached), figures.AtMost(goalAllocations)
	}
	return figures.AtMost(goalForwarded), figures.AtMost(goalAllocations)
}

// figures returns what was measured of a workload.
func (b *bench) figures(w string) []figures.Figure {
	var all figures.Figures
	var order []string
	base, logged, noop := b.cost[w][vanilla], b.cost[w][logName], b.cost[w][noopName]
	noopGoal := figures.AtMost(goalForwardedNoop)
	if w == cachedName {
		noopGoal = figures.AtMost(goalCachedNoop)
	}
	for _, v := range b.variants() {
		order = append(order, v.name)
		ratio, allocations := goals(w, v.name)
		for i, c := range b.cost[w][v.name] {
			all.Add("CPU time a query", v.name, "µs", micros(c), figures.Goal{})
			if v.name != vanilla {
				all.Add("CPU time ÷ vanilla", v.name, "", float64(c)/float64(base[i]), ratio)
			}
			if v.name == tracedName && i < len(noop) {
				all.Add("CPU time ÷ no-op plugin", v.name, "", float64(c)/float64(noop[i]), noopGoal)
			}
			if v.name == tracedName {
				all.Add("CPU time ÷ log", v.name, "", float64(c)/float64(logged[i]), figures.AtMost(goalLog))
			}
		}
		if v.name != vanilla && !b.cfg.minimal {
			all.Add("allocations a query more than vanilla", v.name, "", b.allocated[w][v.name].perQuery()-b.allocated[w][vanilla].perQuery(), allocations)
		}
	}
	for _, name := range []string{vanilla, tracedName, blockedName} {
		for _, took := range b.took[w][name] {
			all.Add("latency, p50", name, "µs", micros(quantile(took, 0.5)), figures.Goal{})
			all.Add("latency, p99", name, "µs", micros(quantile(took, 0.99)), figures.Goal{})
		}
	}
	return all.Sorted(order)
}

// quantile returns the value below which a share of sorted values is.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }
