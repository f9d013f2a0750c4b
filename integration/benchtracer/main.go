// Command benchtracer measures what watching a node's DNS costs: `dnstrace run`,
// beside tcpdump in every network namespace and an AF_PACKET socket with a filter
// in every network namespace, each compared with no observer at all. It builds
// the lab's node, and asks CoreDNS and an echo server through the Service address.
//
// The observers are started anew for every turn and take turns of some seconds,
// each time another one first, so that whatever else the machine does hits them
// alike; a turn is compared with the turn without observer of the same round. The
// tracer sees every namespace of the machine: its figures are only of this load
// while nothing else here asks DNS, which shows in the packets seen a lookup.
// It ends by itself, and nothing stays behind. It needs root; `make bench-tracer`
// runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
)

func main() {
	// The echo server and the packet sockets are processes of their own, as
	// tcpdump and CoreDNS are: this program, started with the name of the part.
	if len(os.Args) > 1 {
		if play, ok := roles[os.Args[1]]; ok {
			exit(play(os.Args[2:]))
		}
	}
	var cfg config
	only := flag.String("only", "", "measure only these, with commas between: "+partNames(parts)+"; with -against "+partNames(changeParts))
	flag.StringVar(&cfg.coredns, "coredns", "bin/coredns", "CoreDNS")
	flag.StringVar(&cfg.dnstrace, "dnstrace", "bin/dnstrace", "the node tracer")
	flag.StringVar(&cfg.against, "against", "", "another build of dnstrace: compare the two")
	flag.IntVar(&cfg.rounds, "rounds", 20, "rounds of a part, at most")
	flag.DurationVar(&cfg.limit, "time", 10*time.Minute, "how long all parts together may take, about")
	flag.BoolVar(&cfg.netns, "netns", false, "observe the namespaces of this run only, where others on the machine ask DNS, too: costs a comparison a packet")
	flag.StringVar(&cfg.results, "results", "", "append the results to this file, a JSON line for each part")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, cfg, *only))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchtracer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// roles are the processes that this program starts of itself.
var roles = map[string]func(args []string) error{
	echoRole:          func([]string) error { return serveEcho() },
	sinkRole:          func([]string) error { return serveSink() },
	packetSocketsRole: readPacketSockets,
}

// config is what the flags say.
type config struct {
	coredns, dnstrace string
	against           string
	rounds            int
	limit             time.Duration
	results           string
	netns             bool
}

// part is one of the things to measure.
type part struct {
	name, title string
	// weight is its share of the time.
	weight  int
	measure func(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error)
}

var parts = []part{
	{"throughput", "Throughput of DNS in a closed loop, with an observer ÷ without", 24, measureThroughput},
	{"bulk", "Throughput of TCP that is no DNS, with an observer ÷ without", 16, measureBulk},
	{"programs", "Time in the eBPF programs a packet, above an empty program on the same tracepoint", 6, measurePrograms},
	{"cpu", "The tracer alone: what the observers take at a steady rate, asking the echo server", 60, measureSteady(echo, aloneTurns)},
	{"records", "Plugin and tracer: what the observers take at a steady rate, asking CoreDNS with the plugin, which answers from its cache", 40, measureSteady(recorded, recordedTurns)},
	{"kinds", fmt.Sprintf("Plugin and tracer: what lookups take the tracer, by kind, at %d a second", kindRate), 12, measureKinds},
	{"start", "Start-up, and what an observer takes where nobody asks", 8, measureStart},
	{"latency", fmt.Sprintf("Latency of an open loop at %d lookups a second, asking the echo server", latencyRate), 24, measureLatency},
}

func partNames(parts []part) string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// choose returns the parts that -only names, all if it names none.
func choose(parts []part, only string) ([]part, error) {
	if only == "" {
		return parts, nil
	}
	var chosen []part
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: expected %s", name, partNames(parts))
		}
		chosen = append(chosen, parts[i])
	}
	return chosen, nil
}

func run(ctx context.Context, cfg config, only string) (err error) {
	from := parts
	if cfg.against != "" {
		from = changeParts
	}
	chosen, err := choose(from, only)
	if err != nil {
		return err
	}
	if cfg.rounds < 1 {
		return errors.New("-rounds: expected at least 1")
	}
	m, err := figures.Here(cfg.dnstrace, "--version")
	if err != nil {
		return err
	}
	r, err := newRig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	fmt.Println(m)
	end, weights := time.Now().Add(cfg.limit), 0
	for _, p := range chosen {
		weights += p.weight
	}
	for _, p := range chosen {
		share := time.Until(end) * time.Duration(p.weight) / time.Duration(weights)
		weights -= p.weight
		measured, err := p.measure(ctx, r, schedule{cfg.rounds, time.Now().Add(share)})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := figures.Print(os.Stdout, p.title, measured); err != nil {
			return err
		}
		flags := "-only " + p.name
		if cfg.netns {
			flags += " -netns"
		}
		alone := "make bench-tracer BENCHFLAGS='" + flags + "'"
		if err := (figures.Part{Machine: m, Command: alone, Title: p.title, Figures: measured}).Append(cfg.results); err != nil {
			return err
		}
	}
	return nil
}

// schedule says how long a part may take.
type schedule struct {
	rounds int
	until  time.Time
}

// all numbers the rounds, from 0: at least one, and no more than end in time if
// each takes as long as the one before.
func (s schedule) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := range s.rounds {
			begin := time.Now()
			if !yield(n) || time.Now().Add(time.Since(begin)).After(s.until) {
				return
			}
		}
	}
}
