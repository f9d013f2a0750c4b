package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/figures"
)

const (
	// programQueries is how many lookups a turn is, with DNS and with what is not.
	programQueries = 8000
	// fewRuns is what does not make a mean.
	fewRuns = 1000
)

// tracepoints says where each program of the tracer is attached, so that it is
// compared with an empty program at the same place. No place: it does not run for
// packets, but when it is asked, and counts to the sum alone.
var tracepoints = map[string]string{
	"net_dev_queue":         "net_dev_queue",
	"netif_receive":         "netif_receive_skb",
	"kfree_skb":             "kfree_skb",
	"kfree_skb_old":         "kfree_skb",
	"listeners":             "",
	"sk_data_ready":         "sk_data_ready",
	"tcp_probe":             "tcp_probe",
	"sock_recv_length":      "sock_recv_length",
	"neigh_event_send_done": "neigh_event_send_done",
	"cgroup_ingress":        rootCgroup,
}

// measurePrograms compares the run time of the tracer's programs with that of
// empty ones, as the kernel counts it.
func measurePrograms(ctx context.Context, r *rig, s schedule) (list []figures.Figure, err error) {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return nil, fmt.Errorf("count the run time of BPF programs: %w", err)
	}
	defer func() { err = errors.Join(err, stats.Close()) }()
	var all figures.Figures
	for range s.all() {
		if err := r.programRound(ctx, &all); err != nil {
			return nil, err
		}
	}
	return all.Sorted(nil), nil
}

// programRound starts the tracer beside empty programs, and asks for names, and
// then as much of what is no DNS.
func (r *rig) programRound(ctx context.Context, all *figures.Figures) (err error) {
	empty, err := attachEmpty()
	if err != nil {
		return err
	}
	defer empty.close()
	o, err := r.observe(dnstraceRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.stop()) }()
	tracer, err := programsOf(o.processes[0].Pid())
	if err != nil {
		return err
	}
	defer tracer.close()
	dns := func() error {
		_, err := r.closedLoop(ctx, echo, programQueries)
		return err
	}
	if err := compare(tracer, empty.programs, dns, "a DNS packet", figures.AtMost(250), all); err != nil {
		return err
	}
	if err := compare(tracer, empty.programs, func() error {
		_, err := r.closedLoopTo(ctx, r.otherAddress(), echo, programQueries)
		return err
	}, "another packet", figures.AtMost(30), all); err != nil {
		return err
	}
	// The client pod itself, where nobody listens. No goal is set for drops: they are rare.
	for packet, port := range map[string]uint16{"a dropped DNS packet": 53, "another dropped packet": otherPort} {
		closed := netip.AddrPortFrom(r.Host(clientPod).V4, port)
		if err := compare(tracer, empty.programs, func() error { return r.refused(ctx, closed) }, packet, figures.Goal{}, all); err != nil {
			return err
		}
	}
	return nil
}

// otherAddress is where the echo server answers what is no DNS: its pod's own address, so
// that other ports stay as they are.
func (r *rig) otherAddress() netip.AddrPort { return netip.AddrPortFrom(r.Host(echoPod).V4, otherPort) }

// refused sends as many queries to a port that nobody listens on: the kernel drops
// each, for lack of a socket.
func (r *rig) refused(ctx context.Context, to netip.AddrPort) error {
	s, err := r.dial(to, echo, 0)
	if err != nil {
		return err
	}
	defer s.close()
	for sent := 0; sent < programQueries && ctx.Err() == nil; {
		switch err := s.send(uint16(sent)); {
		case err == nil:
			sent++
		case !errors.Is(err, unix.ECONNREFUSED): // which says that of the one before, and sends nothing
			return fmt.Errorf("send to %s: %w", to, err)
		}
	}
	return ctx.Err()
}

// compare notes what a run of each of the tracer's programs takes under a load,
// above the empty program at the same place.
func compare(tracer, empty programs, load func() error, packet string, g figures.Goal, all *figures.Figures) error {
	before, err := readRuns(tracer, empty)
	if err != nil {
		return err
	}
	if err := load(); err != nil {
		return err
	}
	after, err := readRuns(tracer, empty)
	if err != nil {
		return err
	}
	var sum time.Duration
	for name := range tracer {
		tracepoint, known := tracepoints[name]
		if !known {
			return fmt.Errorf("program %s of the tracer: at which tracepoint? say so in tracepoints", name)
		}
		run := after[name].since(before[name])
		sum += run.time
		if tracepoint == "" {
			continue
		}
		floor := after[emptyAt(tracepoint)].since(before[emptyAt(tracepoint)])
		if run.count < fewRuns || floor.count < fewRuns {
			continue
		}
		all.Add(packet+" in "+name, "above an empty program", "ns", run.mean()-floor.mean(), g)
		all.Add(packet+" in "+name, "an empty program", "ns", floor.mean(), figures.Goal{})
		all.Add(packet+" in "+name, "runs", "a lookup", float64(run.count)/programQueries, figures.Goal{})
	}
	all.Add(packet+", all programs", "with what a run costs anyway", "µs a lookup", micros(sum)/programQueries, figures.Goal{})
	return nil
}

// runs is what the kernel counts of a program.
type runs struct {
	time  time.Duration
	count uint64
}

func (r runs) since(before runs) runs { return runs{r.time - before.time, r.count - before.count} }

func (r runs) mean() float64 { return float64(r.time) / float64(r.count) }

// programs are loaded, by name.
type programs map[string]*ebpf.Program

// readRuns reads the counts of all programs.
func readRuns(sets ...programs) (map[string]runs, error) {
	all := make(map[string]runs)
	for _, set := range sets {
		for name, p := range set {
			s, err := p.Stats()
			if err != nil {
				return nil, fmt.Errorf("run time of program %s: %w", name, err)
			}
			all[name] = runs{s.Runtime, s.RunCount}
		}
	}
	return all, nil
}

func (ps programs) close() {
	for _, p := range ps {
		_ = p.Close()
	}
}

// programsOf returns the programs that a process has attached.
func programsOf(pid int) (programs, error) {
	ids, err := programIDs(pid)
	if err != nil {
		return nil, err
	}
	all := make(programs)
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			all.close()
			return nil, fmt.Errorf("BPF program %d: %w", id, err)
		}
		info, err := p.Info()
		if err != nil {
			_ = p.Close()
			all.close()
			return nil, fmt.Errorf("BPF program %d: %w", id, err)
		}
		all[info.Name] = p
	}
	if len(all) == 0 {
		return nil, errors.New("dnstrace holds no BPF program: did it drop its links?")
	}
	return all, nil
}
