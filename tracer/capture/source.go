package capture

import (
	"cmp"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
)

// MaxPorts is how many ports the programs compare with (bpf/dnstrace.c).
const MaxPorts = 8

// Bounds of the size of each CPU's ring, and of all together. 4 MiB hold some
// 10,000 events, many times what a core sends between two polls; on a machine
// with a hundred cores no core sends that much.
const (
	maxRingBytes  = 4 << 20
	minRingBytes  = 256 << 10
	allRingsBytes = 64 << 20
)

// defaultRingBytes returns the size of a ring: a power of two, which is what the
// kernel wants.
func defaultRingBytes(cpus int) int {
	size := maxRingBytes
	for size > minRingBytes && size*cpus > allRingsBytes {
		size /= 2
	}
	return size
}

// Config says what to capture.
type Config struct {
	// Ports of DNS servers, 1 to MaxPorts. The source learns to which ports a translation, as
	// by a Service, maps them.
	Ports     []uint16
	RingBytes int // per CPU, a power of two; 0: up to 4 MiB, 64 MiB in all
	// NetNS are the network namespaces to observe, MaxNetNS at most: names as
	// ip-netns(8) has them, "host", paths, inode numbers. Empty: all. A name or path
	// is followed, from one Poll to the next, when another namespace takes it.
	NetNS []string
	// Sample is the share of the lookups that the programs report, from 0 to 1, chosen
	// as by [trace.Sampled] with the port that the client used; nil: all.
	Sample *float64
}

// Source delivers the packets that the programs saw. Its methods are not safe for
// concurrent use unless they say so.
type Source struct {
	coll         *ebpf.Collection
	links        []link.Link
	rings        []*ringbuf.Reader
	unread       unread
	lostAtSocket bool // deliveries or reads may be missing since the last poll
	waitingKnown bool // as set in the programs (setWaitingKnown)
	// Why packets are not seen at their sockets by the program of the root cgroup, and
	// why by none.
	cgroupErr, socketErr error

	perfReader   *perf.Reader // nil: the programs read non-linear payload, or nothing does
	nonLinearErr error        // why nothing does
	counters     *ebpf.Memory
	servers      *servers
	cpus         int
	loss         lossReader
	decoder      decoder
	pending      pending
	waiting      []int          // by ring: bytes that are to be read in this poll
	record       ringbuf.Record // of a ring, read into pending
	shedder      shedder
	chosen       []chosen               // namespaces; none: all are observed
	changes      []ThresholdChange      // not delivered yet
	polled       []bpf.DnstraceCounters // by CPU, at the last poll
}

// countersMap is the section that holds cpu_counters, an array of maxCPUs
// (bpf/dnstrace.c).
const (
	countersMap  = ".data.counters"
	counterBytes = int(unsafe.Sizeof(bpf.DnstraceCounters{}))
	maxCPUs      = 256
)

// Open loads and attaches the programs. The error names what is missing and the
// remedy. The caller owns the source and must close it.
func Open(cfg Config) (*Source, error) {
	return open(cfg, kernelPayloadAccess(), arrivalBest)
}

func open(cfg Config, access payloadAccess, arrival arrivalWay) (*Source, error) {
	observe, err := choose(netnsDir, cfg.NetNS)
	if err != nil {
		return nil, err
	}
	spec, err := newSpec(cfg, observe)
	if err != nil {
		return nil, err
	}
	// Before Linux 5.11 maps count as locked memory; later it has no effect.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, remedy(fmt.Errorf("raise the limit of locked memory: %w", err))
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, remedy(fmt.Errorf("read the kernel's BTF: %w", err))
	}
	chooseDropPrograms(spec, kernel)
	if err := prepareSockets(spec, kernel, arrival); err != nil {
		return nil, fmt.Errorf("set what is seen at sockets: %w", err)
	}
	s := &Source{chosen: observe, unread: unread{sockets: map[uint64]ends{}}, decoder: decoder{
		names:   map[[16]int8]string{},
		netns:   newNamespaces(netnsDir),
		symbols: newSymbols("/proc/kallsyms"),
		reasons: dropReasons(kernel),
	}}
	if err := s.load(spec, access, arrival); err != nil {
		return nil, errors.Join(remedy(err), s.Close())
	}
	s.servers = newServers(cfg.Ports, nil)
	whole := thresholdOf(cfg.Sample)
	s.shedder = shedder{ceiling: whole, threshold: whole, calm: Now()}
	if err := s.start(spec.Maps[bpf.DnstraceMapRings].InnerMap, arrival); err != nil {
		return nil, errors.Join(remedy(err), s.Close())
	}
	return s, nil
}

func newSpec(cfg Config, observe []chosen) (*ebpf.CollectionSpec, error) {
	if len(cfg.Ports) == 0 || len(cfg.Ports) > MaxPorts {
		return nil, fmt.Errorf("expected 1 to %d ports, got %d", MaxPorts, len(cfg.Ports))
	}
	spec, err := bpf.LoadDnstrace()
	if err != nil {
		return nil, fmt.Errorf("read the built-in eBPF object: %w", err)
	}
	var ports [MaxPorts]uint16
	copy(ports[:], cfg.Ports)
	if err := spec.Variables[bpf.DnstraceVarPorts].Set(ports); err != nil {
		return nil, fmt.Errorf("set the ports: %w", err)
	}
	if err := errors.Join(spec.Variables[bpf.DnstraceVarNetnsListed].Set(uint32(len(observe))),
		spec.Variables[bpf.DnstraceVarNetnsInodes].Set(inodes(observe))); err != nil {
		return nil, fmt.Errorf("set the namespaces: %w", err)
	}
	if err := setSample(spec, cfg.Sample); err != nil {
		return nil, fmt.Errorf("set the sample: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the processors: %w", err)
	}
	rings := spec.Maps[bpf.DnstraceMapRings]
	rings.MaxEntries = uint32(cpus)
	rings.InnerMap.MaxEntries = uint32(cmp.Or(cfg.RingBytes, defaultRingBytes(cpus)))
	return spec, nil
}

// setSample sets which lookups the programs report.
func setSample(spec *ebpf.CollectionSpec, rate *float64) error {
	if rate == nil {
		return nil
	}
	return errors.Join(spec.Variables[bpf.DnstraceVarSampleBelow].Set(trace.SampleThreshold(*rate)),
		spec.Variables[bpf.DnstraceVarShare].Set(uint32(thresholdOf(rate))))
}

// load loads the programs.
func (s *Source) load(spec *ebpf.CollectionSpec, access payloadAccess, arrival arrivalWay) error {
	ring := int(spec.Maps[bpf.DnstraceMapRings].InnerMap.MaxEntries)
	events, err := s.prepareNonLinear(spec, access, min(ring, maxPerfBufferBytes))
	if err != nil {
		return fmt.Errorf("set how payload in pages is read: %w", err)
	}
	var options ebpf.CollectionOptions
	if events != nil {
		defer events.Close() // the collection and the reader have it too
		options.MapReplacements = map[string]*ebpf.Map{bpf.DnstraceMapPagedEvents: events}
	}
	s.coll, err = ebpf.NewCollectionWithOptions(spec, options)
	for err != nil && arrival == arrivalBest && withoutSockets(spec) {
		s.socketErr = err
		s.coll, err = ebpf.NewCollectionWithOptions(spec, options)
	}
	if err != nil {
		return fmt.Errorf("load the eBPF programs: %w", err)
	}
	return nil
}

// chooseDropPrograms keeps the program that fits the tracepoint's arguments: the verifier
// refuses one that reads an argument the kernel does not pass. It removes the program of a
// tracepoint that the kernel does not have: what waited for a link address then has the
// time of its drop.
func chooseDropPrograms(spec *ebpf.CollectionSpec, kernel *btf.Spec) {
	drop := bpf.DnstraceProgKfreeSkb
	if tracepointArgs(kernel, "kfree_skb") >= 3 {
		drop = bpf.DnstraceProgKfreeSkbOld
	}
	delete(spec.Programs, drop)
	if tracepointArgs(kernel, "neigh_event_send_done") == 0 {
		delete(spec.Programs, bpf.DnstraceProgNeighEventSendDone)
	}
}

// tracepointArgs returns how many arguments a tracepoint passes: its BTF type has one more,
// the private data of the attachment.
func tracepointArgs(kernel *btf.Spec, name string) int {
	var def *btf.Typedef
	if err := kernel.TypeByName("btf_trace_"+name, &def); err != nil {
		return 0
	}
	ptr, ok := def.Type.(*btf.Pointer)
	if !ok {
		return 0
	}
	proto, ok := ptr.Target.(*btf.FuncProto)
	if !ok {
		return 0
	}
	return len(proto.Params) - 1
}

func (s *Source) start(ring *ebpf.MapSpec, arrival arrivalWay) error {
	var err error
	// Mapped, because looking maps up needs a privilege that may be dropped.
	if s.counters, err = s.coll.Maps[countersMap].Memory(); err != nil {
		return fmt.Errorf("map the counters: %w", err)
	}
	known, err := s.coll.Maps[serversMap].Memory()
	if err != nil {
		return fmt.Errorf("map the servers: %w", err)
	}
	s.servers.write, s.decoder.servers = writer(known), s.servers
	s.cpus = min(int(s.coll.Maps[bpf.DnstraceMapRings].MaxEntries()), maxCPUs)
	if err := s.openRings(ring); err != nil {
		return err
	}
	s.loss = newLossReader(s.cpus)
	s.polled = make([]bpf.DnstraceCounters, s.cpus)
	if err := s.attachArrival(arrival); err != nil {
		return err
	}
	if err := s.setWaitingKnown(Now()); err != nil {
		return err
	}
	for name, prog := range s.coll.Programs {
		if name == bpf.DnstraceProgCgroupIngress {
			continue // it is attached
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		s.links = append(s.links, l)
	}
	return nil
}

func (s *Source) openRings(ring *ebpf.MapSpec) error {
	outer := s.coll.Maps[bpf.DnstraceMapRings]
	for cpu := range outer.MaxEntries() {
		m, err := ebpf.NewMap(ring)
		if err != nil {
			return fmt.Errorf("create the ring of CPU %d: %w", cpu, err)
		}
		err = outer.Put(cpu, m)
		if err == nil {
			var r *ringbuf.Reader
			if r, err = ringbuf.NewReader(m); err == nil {
				r.SetDeadline(past)
				s.rings = append(s.rings, r)
			}
		}
		// The outer map and the reader's mapping keep the ring alive.
		if err = errors.Join(err, m.Close()); err != nil {
			return fmt.Errorf("set up the ring of CPU %d: %w", cpu, err)
		}
	}
	return nil
}

// Close detaches the programs and frees everything.
func (s *Source) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	for _, r := range s.rings {
		errs = append(errs, r.Close())
	}
	if s.perfReader != nil {
		errs = append(errs, s.perfReader.Close())
	}
	errs = append(errs, s.decoder.symbols.close(), s.decoder.netns.close())
	if s.coll != nil {
		s.coll.Close()
	}
	return errors.Join(errs...)
}

// Now returns the kernel's monotonic clock in ns, the one that events carry.
func Now() int64 {
	var ts unix.Timespec
	// CLOCK_MONOTONIC cannot fail (clock_gettime(2)).
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
