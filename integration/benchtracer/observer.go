package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// The variants that are compared.
const (
	off         = "off"
	dnstraceRun = "dnstrace run"
	// As README.md says for a busy node.
	dnstraceLean   = "dnstrace run, 1 %"
	dnstraceKernel = "dnstrace run, 1 % in the kernel"
	tcpdump        = "tcpdump"
	packetSockets  = "AF_PACKET"
)

var variants = []string{off, dnstraceRun, tcpdump, packetSockets}

// busyVariants are those under a load that a busy node has.
var busyVariants = []string{off, dnstraceRun, dnstraceLean, dnstraceKernel, tcpdump, packetSockets}

var lean = []string{"--record", "trace", "--sample", "0.01"}

// settle is how long an observer has, after the load, for what it has not
// worked off: tcpdump and the packet sockets take what waits within that.
const settle = 300 * time.Millisecond

// observer is one of the variants, running.
type observer struct {
	rig       *rig
	name      string
	processes []*lab.Process
	metrics   string        // the address of dnstrace's
	startup   time.Duration // until it said that it is ready
}

// observe starts a variant. The caller must end it.
func (r *rig) observe(name string) (*observer, error) {
	o := &observer{rig: r, name: name}
	start := map[string]func() error{
		off: func() error { return nil }, dnstraceRun: func() error { return o.startTracer("--record", "trace") },
		dnstraceLean:   func() error { return o.startTracer(lean...) },
		dnstraceKernel: func() error { return o.startTracer(slices.Concat(lean, []string{"--sample-in-kernel"})...) },
		tcpdump:        o.startTcpdump, packetSockets: o.startPacketSockets,
	}
	begin := time.Now()
	if err := start[name](); err != nil {
		return nil, errors.Join(err, o.stop())
	}
	o.startup = time.Since(begin)
	return o, nil
}

// isTracer tells whether a variant is `dnstrace run`, one way or another.
func isTracer(variant string) bool {
	return variant == dnstraceRun || variant == dnstraceLean || variant == dnstraceKernel
}

// startTracer starts `dnstrace run` as it is by default but for -netns and args,
// writing to a file.
func (o *observer) startTracer(args ...string) error {
	return o.startTracerAt(o.rig.dnstrace, args...)
}

func (o *observer) startTracerAt(path string, args ...string) (err error) {
	if o.metrics, err = freeAddress(); err != nil {
		return err
	}
	args = append(args, "--metrics", o.metrics)
	if o.rig.netns {
		for _, host := range hosts {
			args = append(args, "--netns", o.rig.Host(host).Netns)
		}
	}
	p, err := o.rig.StartTracerAt(path, args...)
	if err != nil {
		return err
	}
	o.processes = []*lab.Process{p}
	return nil
}

// hosts are the namespaces of the node.
var hosts = []string{lab.Node, lab.CoreDNS, lab.Upstream, clientPod, echoPod, recordedPod}

// startTcpdump starts one in every namespace, on all of its devices.
func (o *observer) startTcpdump() error {
	for _, host := range hosts {
		p, err := o.rig.Start(lab.Spec{
			Name: "tcpdump-" + host, Host: host, Path: "tcpdump", Ready: lab.ReadyLine("listening on"),
			// As root: a change of user would clear Pdeathsig.
			Args: []string{"-n", "-i", "any", "-Z", "root", "-w", filepath.Join(o.rig.Dir(), host+".pcap"), "port", "53"},
		})
		if err != nil {
			return fmt.Errorf("%w (of the Debian package tcpdump)", err)
		}
		o.processes = append(o.processes, p)
	}
	return nil
}

// startPacketSockets starts one process that holds a socket in every namespace.
func (o *observer) startPacketSockets() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("path of this program: %w", err)
	}
	args := []string{packetSocketsRole}
	for _, host := range hosts {
		args = append(args, o.rig.Host(host).Netns)
	}
	p, err := o.rig.Start(lab.Spec{Name: packetSocketsRole, Path: self, Args: args, Ready: lab.ReadyLine(readyLine)})
	if err != nil {
		return err
	}
	o.processes = []*lab.Process{p}
	return nil
}

// cpu returns the CPU time that the observer's processes took so far.
func (o *observer) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range o.processes {
		d, err := cpuTime(p.Pid())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", o.name, err)
		}
		sum += d
	}
	return sum, nil
}

// memory returns what the observer's processes hold together.
func (o *observer) memory() (memory, error) {
	var sum memory
	for _, p := range o.processes {
		m, err := memoryOf(p.Pid())
		if err != nil {
			return sum, fmt.Errorf("%s: %w", o.name, err)
		}
		sum.peak += m.peak
		sum.own += m.own
	}
	return sum, nil
}

// drained waits until dnstrace has finished the traces of so many lookups: it
// keeps each for some time after its last packet. A hundredth may stay open, for
// it sees what others on this machine ask, too; those it lost packets of stay
// until its own timeout.
func (o *observer) drained(ctx context.Context, lookups int) error {
	for end := time.Now().Add(drainTimeout); ; {
		if err := pause(ctx, settle); err != nil || !isTracer(o.name) {
			return err
		}
		values, err := scrape(ctx, o.metrics)
		if err != nil {
			return err
		}
		open := values["dnstrace_open_exchanges"] + values["dnstrace_pending_traces"]
		if open <= float64(lookups)/100 || time.Now().After(end) {
			return nil
		}
	}
}

// drainTimeout is longer than dnstrace waits for a response (--timeout), and for
// the rest of a trace.
const drainTimeout = 8 * time.Second

// tally is what an observer says of itself.
type tally struct {
	seen, lost float64 // packets, once for every device
	shed       float64 // those of lookups that dnstrace left out whole
	traces     float64 // of dnstrace
}

// lostShare and shedShare are what was lost and shed of all, in percent.
func (t tally) lostShare() float64 { return t.percent(t.lost) }
func (t tally) shedShare() float64 { return t.percent(t.shed) }

func (t tally) percent(part float64) float64 {
	all := t.seen + t.lost + t.shed
	if all == 0 {
		return 0
	}
	return 100 * part / all
}

// end stops the observer, and returns what it saw.
func (o *observer) end(ctx context.Context) (tally, error) {
	var t tally
	if isTracer(o.name) {
		values, err := scrape(ctx, o.metrics)
		if err != nil {
			return t, errors.Join(err, o.stop())
		}
		t = tally{values["dnstrace_events_total"], values["dnstrace_lost_events_total"], values["dnstrace_shed_events_total"], values["dnstrace_traces_total"]}
	}
	err := o.stop()
	if o.name == tcpdump || o.name == packetSockets {
		for _, p := range o.processes {
			seen, lost, unreadable := packetCounts(p.Stderr())
			err = errors.Join(err, unreadable)
			t.seen += seen
			t.lost += lost
		}
	}
	return t, err
}

// abandon stops the observer after an error, which it returns.
func (o *observer) abandon(err error) error { return errors.Join(err, o.stop()) }

// stop ends the processes and removes what they wrote.
func (o *observer) stop() error {
	var errs []error
	for _, p := range o.processes {
		errs = append(errs, p.Stop())
	}
	for _, pattern := range []string{"*.pcap", filepath.Base(o.rig.RecordFile())} {
		files, err := filepath.Glob(filepath.Join(o.rig.Dir(), pattern))
		errs = append(errs, err)
		for _, file := range files {
			errs = append(errs, os.Remove(file))
		}
	}
	return errors.Join(errs...)
}

// countLine is what tcpdump says at its end, and the packet sockets too.
var countLine = regexp.MustCompile(`(?m)^(\d+) packets? (captured|dropped by kernel)$`)

// packetCounts reads how many packets were captured and how many dropped.
func packetCounts(text string) (seen, lost float64, err error) {
	found := countLine.FindAllStringSubmatch(text, -1)
	if len(found) != 2 {
		return 0, 0, fmt.Errorf("expected a count of captured and one of dropped packets in %q", strings.TrimSpace(text))
	}
	for _, m := range found {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, 0, err
		}
		if m[2] == "captured" {
			seen = n
		} else {
			lost = n
		}
	}
	return seen, lost, nil
}
