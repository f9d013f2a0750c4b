package capture

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"

	"github.com/dnstrace/dnstrace/bpf"
)

// maxPerfBufferBytes bounds the perf buffer of a CPU. Without further privileges the kernel
// lets a user lock 516 KiB a CPU for all perf buffers (kernel.perf_event_mlock_kb); this is
// half of that, and room for some 500 segments of DNS between two polls.
const maxPerfBufferBytes = 256 << 10

// payloadAccess is how the programs get the non-linear payload of an skb: what lies in
// pages and not in its head (bpf/paged.h).
type payloadAccess int

const (
	readInPlace    payloadAccess = iota // by the programs, since Linux 6.12
	copiedByKernel                      // into a perf buffer
)

// kernelPayloadAccess returns the best access that the running kernel supports.
func kernelPayloadAccess() payloadAccess {
	if kernelAtLeast(6, 12) {
		return readInPlace
	}
	return copiedByKernel
}

// prepareNonLinear sets how the programs access non-linear payload, and creates perf
// buffers of so many bytes each if they are needed. Where that fails, the source works
// without them and keeps the reason in nonLinearErr: DNS over UDP is still worth seeing.
// The caller owns the map, nil without buffers.
func (s *Source) prepareNonLinear(spec *ebpf.CollectionSpec, access payloadAccess, bytes int) (*ebpf.Map, error) {
	var events *ebpf.Map
	if access == copiedByKernel {
		events, s.perfReader, s.nonLinearErr = newPerfReader(spec, bytes)
	}
	return events, errors.Join(spec.Variables[bpf.DnstraceVarReadPaged].Set(access == readInPlace),
		spec.Variables[bpf.DnstraceVarOutputPaged].Set(s.perfReader != nil))
}

func newPerfReader(spec *ebpf.CollectionSpec, bytes int) (*ebpf.Map, *perf.Reader, error) {
	events, err := ebpf.NewMap(spec.Maps[bpf.DnstraceMapPagedEvents])
	if err != nil {
		return nil, nil, fmt.Errorf("create the map of perf buffers: %w", err)
	}
	// As with the rings, without wakeups.
	r, err := perf.NewReaderWithOptions(events, bytes, perf.ReaderOptions{Watermark: bytes - 1})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the perf buffers: %w", err), events.Close())
	}
	r.SetDeadline(past)
	return events, r, nil
}

// drainPerfBuffers reads the current content of the perf buffers.
func (s *Source) drainPerfBuffers() error {
	for s.perfReader != nil {
		rec := perf.Record{RawSample: s.pending.room()}
		err := s.perfReader.ReadInto(&rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a perf buffer: %w", err)
		}
		// The program counts the events that find the buffer full.
		if rec.LostSamples > 0 {
			continue
		}
		if len(rec.RawSample) < eventSize {
			return fmt.Errorf("read a perf buffer: a record of %d bytes is shorter than an event", len(rec.RawSample))
		}
		s.shedder.saw(float64(rec.Remaining+len(rec.RawSample))/float64(s.perfReader.BufferSize()), 0, 0)
		s.pending.add(rec.RawSample)
	}
	return nil
}
