package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/cgroup"
	"github.com/dnstrace/dnstrace/tracer/export"
	"github.com/dnstrace/dnstrace/tracer/filter"
	"github.com/dnstrace/dnstrace/tracer/history"
	"github.com/dnstrace/dnstrace/tracer/kube"
	"github.com/dnstrace/dnstrace/tracer/listener"
	"github.com/dnstrace/dnstrace/tracer/messages"
	"github.com/dnstrace/dnstrace/tracer/metrics"
	"github.com/dnstrace/dnstrace/tracer/origin"
	"github.com/dnstrace/dnstrace/tracer/peer"
	"github.com/dnstrace/dnstrace/tracer/pipeline"
	"github.com/dnstrace/dnstrace/tracer/priority"
	"github.com/dnstrace/dnstrace/tracer/privilege"
	"github.com/dnstrace/dnstrace/tracer/receive"
)

// defaultHistoryMemory bounds the memory of finished traces: some 60,000, compressed.
const defaultHistoryMemory = "16MiB"

// leastHistoryMemory is what the history needs to hold a block of traces.
const leastHistoryMemory = 1 << 20

// gcPercent makes the heap grow by half, not by all of what is in use, between two
// collections: a tracer is a guest on its node. It costs a twentieth more time at
// 10,000 lookups a second, and nothing at ten. GOGC overrules it.
const gcPercent = 50

// lastPatience is how long the outputs may take for what is left at the end.
const lastPatience = 5 * time.Second

// filterSteps is what --filter may take a second: by what is looked at, 3 to 30 % of a
// processor. An ordinary filter takes some twenty steps a record, one that looks at each
// sighting a few hundred.
const filterSteps = 1_000_000

// labelPod is the value of --metrics-labels.
const labelPod = "pod"

// expireEvery bounds how late a trace is evicted after its time, where no new ones come.
const expireEvery = 10 * time.Second

// sayLimitedEvery is how often the log says what was not written: often enough to be next to
// what was, without flooding the log.
const sayLimitedEvery = 10 * time.Second

func newRunCommand() *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Observe this node until stopped",
		Long: "Observes the DNS packets of every network namespace of this node, joins them with\n" +
			"what the CoreDNS plugin says of its queries (`output unix PATH`), and writes\n" +
			"trace records, with --record exchange records too, as JSON lines. Needs root, or CAP_BPF and CAP_PERFMON;\n" +
			"gives up every capability when its hooks are attached and its files are open.\n" +
			"Prints `dnstrace: ready` on standard error then.\n\n" +
			"--netns observes only some network namespaces; the kernel passes over what is in\n" +
			"others. What a packet meets there, drops included, is then not known. A name or path\n" +
			"must exist at the start, and is followed, within a tenth of a second, when it is\n" +
			"deleted and made again.\n\n" +
			"--output otlp:URL sends records to an OpenTelemetry collector, or to a backend that\n" +
			"takes OTLP: each record as a log record, and each trace as spans. URL is\n" +
			"http://HOST[:4318], https://, grpc://HOST[:4317] or grpcs://; with /v1/logs or\n" +
			"/v1/traces at its end for a receiver that takes only these. Headers, certificates,\n" +
			"compression, timeout and resource attributes come from the environment, as\n" +
			"OpenTelemetry names them: OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE,\n" +
			"_CLIENT_CERTIFICATE, _CLIENT_KEY, _COMPRESSION and _TIMEOUT,\n" +
			"OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME. What a receiver that is down does not\n" +
			"take in time is dropped and counted.",
		Example: "  dnstrace run\n" +
			"  dnstrace run --output file:/var/log/dnstrace/records.jsonl\n" +
			"  dnstrace run --output otlp:http://collector:4318\n" +
			"  dnstrace run --output otlp:grpc://tempo:4317/v1/traces \\\n" +
			"               --output otlp:http://loki:3100/otlp/v1/logs\n" +
			"  dnstrace run --netns client-a --netns /proc/4711/ns/net\n" +
			"  dnstrace run --port 53 --port 5300 -f 'outcome != \"answered\"'",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return o.run(ctx, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", receive.DefaultPath, "unix datagram socket for the CoreDNS plugin's records")
	f.StringVar(&o.listenOwner, "listen-owner", "", "whose that socket is, USER[:GROUP]: both can write to it (mode 0660); default: of root and the group 65532, as which CoreDNS of deploy/ runs, or this user's alone if that is not root")
	f.StringVar(&o.api, "api", api.DefaultPath, "unix socket of the local API")
	f.StringArrayVar(&o.outputs, "output", []string{"stdout"}, "where records go: stdout, file:PATH or otlp:URL; may be repeated")
	f.StringSliceVar(&o.records, "record", []string{trace.KindTrace}, "which records to write: exchange, trace; a trace holds its exchanges")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:9464", "address of the Prometheus endpoint; empty for none")
	f.StringSliceVar(&o.metricsLabels, "metrics-labels", nil, "more labels for metrics: pod tells clients apart, 512 at most")
	f.UintSliceVar(&o.ports, "port", []uint{53}, "DNS port to observe; may be repeated. The port behind a translation of one of them (a Service's targetPort) is learned, not asked for")
	f.StringSliceVar(&o.netns, "netns", nil, "observe only this network namespace: a name of `ip netns`, host, a path, or an inode number; may be repeated")
	f.DurationVar(&o.history, "history", 10*time.Minute, "how long finished traces stay in memory for the local API")
	f.StringVar(&o.historyMemory, "history-memory", defaultHistoryMemory, "the most memory that finished traces take, half of it for those that failed, were slow or have a finding; the oldest go first, those of a client with more than its share before all others")
	f.DurationVar(&o.timeout, "timeout", 7*time.Second, "a query without a response for this long is unanswered")
	f.Float64Var(&o.sample, "sample", 1, "share of ordinary lookups to write and keep, 0 to 1; those that fail, are slow or have a finding always are")
	f.BoolVar(&o.sampleInKernel, "sample-in-kernel", false, "leave lookups that --sample does not choose out in the kernel, those that fail among them: the least work for the tracer")
	f.StringVarP(&o.filter, "filter", "f", "", "write only records for which this expression is true")
	f.StringVar(&o.kubernetes, "kubernetes", kube.Auto, "names of pods and Services: auto (as a pod: from its cluster), off, or a kubeconfig")
	return cmd
}

func (o *runOptions) run(ctx context.Context, stderr io.Writer) error {
	ports, keep, err := o.validate()
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	tell := func(what string) { say(stderr, "%s", what) }
	n := &node{options: o, messages: messages.NewRing(), tell: tell}
	defer n.close()
	if err := n.open(ports, stderr); err != nil {
		return err
	}
	cgroups, err := cgroup.Open()
	if err != nil {
		tell(err.Error())
	}
	if n.sockets, err = listener.Open(cgroups); err != nil {
		tell(err.Error())
	}
	if !peer.OnNode() {
		tell("which process sends a record is unknown, and CoreDNS's side of lookups is shown unverified: run it in the node's PID namespace (hostPID: true)")
	}
	if n.cluster, err = openCluster(o.kubernetes, ports, n.source.ListServers, tell); err != nil {
		return err
	}
	name, err := kube.NodeName()
	if err != nil {
		tell(err.Error())
	}
	// Everything is attached and open: the expensive start is over, and DNS comes first from
	// here on. Loading programs took more memory than running does.
	debug.FreeOSMemory()
	if err := priority.Lower(); err != nil {
		return err
	}
	if err := privilege.Drop(); err != nil {
		return err
	}
	config := pipeline.Config{
		Source: messages.RecordingSource{Source: n.source, Ring: n.messages}, Receiver: n.receiver, Ports: ports, Timeout: o.timeout,
		Names: cgroups, Node: name, Sample: o.sampleRate(), InKernel: o.sampleInKernel, Limitations: o.limitations(capture.Limits()),
		Exchange: n.sink(trace.KindExchange, keep), Trace: n.traceSink(keep), Flush: n.flush, Last: n.last,
	}
	if n.sockets != nil {
		config.Servers = n.sockets
	}
	if n.cluster != nil {
		config.Enricher = n.cluster
	}
	if n.lookups != nil {
		config.Observe = n.lookups.Observe
	}
	p := pipeline.New(config)
	if _, err := fmt.Fprintln(stderr, "dnstrace: ready"); err != nil {
		return err
	}
	err = n.serve(ctx, p)
	// Before the report: what they have yet to write may fail, too.
	err = errors.Join(err, n.closeOutputs())
	n.report(stderr, p.Counters())
	return err
}

// node is what a running tracer holds open.
type node struct {
	options  *runOptions
	source   *capture.Source
	sockets  *listener.Sockets // nil: this kernel does not tell of them
	receiver *receive.Receiver
	outputs  []output
	closed   bool // the outputs are
	api      *api.Listener
	metrics  net.Listener
	lookups  *metrics.Lookups // nil: no metrics
	history  *history.History
	limiter  *export.Limiter
	cluster  *kube.Cluster // nil: no Kubernetes
	messages *messages.Ring
	tell     func(string) // a line for standard error

	unfiltered atomic.Uint64 // records for which the filter failed
}

// open opens everything before the tracer reports ready: a wrong path must be an error at
// the start.
func (n *node) open(ports []uint16, stderr io.Writer) error {
	var err error
	o := n.options
	n.history = history.New(history.Config{Keep: o.history, MaxBytes: o.historyBytes})
	n.limiter = export.NewLimiter()
	for _, spec := range o.outputs {
		opened, err := openOutput(spec, stderr)
		if err != nil {
			return err
		}
		n.outputs = append(n.outputs, opened...)
	}
	// Before the sockets: missing privileges should be reported first.
	if n.source, err = capture.Open(capture.Config{Ports: ports, NetNS: o.netns, Sample: o.sampleInPrograms()}); err != nil {
		return err
	}
	if err := o.chooseOwner(stderr); err != nil {
		return err
	}
	if n.receiver, err = receive.Listen(o.listen, o.owner); err != nil {
		return err
	}
	if n.api, err = api.Listen(o.api); err != nil {
		return err
	}
	if o.metrics != "" {
		if n.metrics, err = net.Listen("tcp", o.metrics); err != nil {
			return fmt.Errorf("metrics: %w; choose another address with --metrics, or none with --metrics \"\"", err)
		}
		n.lookups = metrics.NewLookups(metrics.Options{Clients: slices.Contains(o.metricsLabels, labelPod)})
	}
	return nil
}

func (n *node) close() {
	if n.source != nil {
		_ = n.source.Close()
	}
	_ = n.sockets.Close()
	if n.receiver != nil {
		_ = n.receiver.Close()
	}
	if n.api != nil {
		_ = n.api.Close()
	}
	if n.metrics != nil {
		_ = n.metrics.Close()
	}
	_ = n.closeOutputs()
}

// closeOutputs closes them once; what they counted can still be asked for.
func (n *node) closeOutputs() error {
	if n.closed {
		return nil
	}
	n.closed = true
	var errs []error
	for _, w := range n.outputs {
		errs = append(errs, w.Close())
	}
	return errors.Join(errs...)
}

// sink returns where records of a kind go, nil if nowhere. Of a client whose lookups
// have the same finding again and again, some go nowhere (package export).
func (n *node) sink(kind string, keep *filter.Filter) pipeline.Sink {
	if !slices.Contains(n.options.records, kind) {
		return nil
	}
	return func(r trace.Record, line []byte) {
		if keep != nil && !n.matches(keep, r) {
			return
		}
		if !n.limiter.Allow(time.Now(), r) {
			return
		}
		for _, w := range n.outputs {
			w.Write(r, line)
		}
	}
}

// matches tells whether a record is to be written. An expression that fails on a record
// counts as false; failures are counted, and the first one is reported.
func (n *node) matches(keep *filter.Filter, r trace.Record) bool {
	ok, err := keep.Match(r)
	if err != nil && n.unfiltered.Add(1) == 1 {
		n.tell(fmt.Sprintf("%v; such records are not written, and counted in dnstrace_filter_failed_total", err))
	}
	return ok && err == nil
}

// traceSink keeps traces for the local API, too.
func (n *node) traceSink(keep *filter.Filter) pipeline.Sink {
	write := n.sink(trace.KindTrace, keep)
	return func(r trace.Record, line []byte) {
		if t, ok := r.(*trace.Trace); ok {
			n.history.Add(time.Now(), history.Lookup{
				Line: line, Client: origin.Of(t), Label: origin.Label(t), Notable: !pipeline.Ordinary(t), Replaces: t.Replaces,
			})
		}
		if write != nil {
			write(r, line)
		}
	}
}

func (n *node) flush() {
	for _, w := range n.outputs {
		w.Flush()
	}
}

func (n *node) last() {
	for _, w := range n.outputs {
		w.Last(lastPatience)
	}
}

// serve runs the pipeline, the API and the metrics until ctx ends or one fails.
func (n *node) serve(ctx context.Context, p *pipeline.Pipeline) error {
	started := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error {
		return api.Serve(ctx, n.api, api.NewHandler(api.Config{
			Version: buildVersion(), Started: started, History: n.history,
			Counters: func() map[string]uint64 { return n.status(p.Counters()) },
			Health: func() error {
				return errors.Join(health(p.Counters().At, time.Now()), n.receiver.State().Err, n.api.State().Err)
			},
			Messages: n.captured,
		}))
	})
	g.Go(func() error { every(ctx, expireEvery, n.history.Expire); return nil })
	g.Go(func() error { every(ctx, sayLimitedEvery, n.sayLimited); return nil })
	g.Go(func() error { n.learnServers(ctx); return nil })
	g.Go(func() error { n.receiver.Run(ctx, n.tell); return nil })
	g.Go(func() error { n.api.Run(ctx, n.tell); return nil })
	if n.cluster != nil {
		g.Go(func() error { n.cluster.Run(ctx); return nil })
	}
	if n.metrics != nil {
		g.Go(func() error {
			return metrics.Serve(ctx, n.metrics, metrics.Collector{
				Version: buildVersion(), Counters: p.Counters, Outputs: n.outputStats, Queued: n.receiver.Queued, Sockets: n.socketStates,
				History: n.history.Stats, HistoryBytes: n.options.historyBytes, Cluster: n.clusterState, Unfiltered: n.unfiltered.Load, Limited: n.limiter.Stats,
			}, n.lookups)
		})
	}
	return g.Wait()
}

// learnServers adds the servers that take queries at another port than those that are
// observed, as behind a Service, from the records that they send. The sender of the record
// has to hold a socket there, and that socket is learned: the address that a record names
// may be anybody's.
func (n *node) learnServers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-n.receiver.Servers():
			if n.source.Ports().IsServer(netip.AddrPortFrom(netip.IPv6Unspecified(), s.Port)) {
				continue // by its port alone
			}
			for _, netns := range n.sockets.Bound(s.PID, s.Port) {
				n.source.LearnSocket(netns, s.Port)
			}
		}
	}
}

// sayLimited says what was not written of clients whose lookups have the same finding
// again and again.
func (n *node) sayLimited(time.Time) {
	for _, line := range n.limiter.Report() {
		n.tell(line)
	}
}

// every does something again and again until ctx ends.
func every(ctx context.Context, period time.Duration, do func(now time.Time)) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			do(now)
		}
	}
}
