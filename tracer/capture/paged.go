package capture

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"

	"github.com/dnstrace/dnstrace/bpf"
)

// maxPagedBytes is the most that a perf buffer has, of which there is one a CPU. The
// kernel lets a user lock 516 KiB a CPU for all of them (kernel.perf_event_mlock_kb)
// before it asks for more privileges; this is half of that, and room for some 500
// segments of DNS between two polls.
const maxPagedBytes = 256 << 10

// pagedWay is how payload in pages is got at (bpf/paged.h).
type pagedWay int

const (
	pagedInPlace pagedWay = iota // read by the programs: since Linux 6.12
	pagedCopied                  // put into a perf buffer by the kernel
)

// wayOfKernel returns that of the running kernel.
func wayOfKernel() pagedWay {
	if kernelAtLeast(6, 12) {
		return pagedInPlace
	}
	return pagedCopied
}

// preparePaged sets what the programs are to do with payload in pages, and makes the
// perf buffers if those are needed, of so many bytes each. Where they cannot be had,
// the source is without, and says why in pagedErr: DNS over UDP is still worth seeing.
// The caller owns the map, nil without buffers.
func (s *Source) preparePaged(spec *ebpf.CollectionSpec, way pagedWay, bytes int) (*ebpf.Map, error) {
	var events *ebpf.Map
	if way == pagedCopied {
		events, s.paged, s.pagedErr = newPagedReader(spec, bytes)
	}
	return events, errors.Join(spec.Variables[bpf.DnstraceVarReadPaged].Set(way == pagedInPlace),
		spec.Variables[bpf.DnstraceVarOutputPaged].Set(s.paged != nil))
}

func newPagedReader(spec *ebpf.CollectionSpec, bytes int) (*ebpf.Map, *perf.Reader, error) {
	events, err := ebpf.NewMap(spec.Maps[bpf.DnstraceMapPagedEvents])
	if err != nil {
		return nil, nil, fmt.Errorf("create the map of perf buffers: %w", err)
	}
	// As with the rings, nobody is to be woken.
	r, err := perf.NewReaderWithOptions(events, bytes, perf.ReaderOptions{Watermark: bytes - 1})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the perf buffers: %w", err), events.Close())
	}
	r.SetDeadline(past)
	return events, r, nil
}

// drainPaged reads what is in the perf buffers now.
func (s *Source) drainPaged() error {
	for s.paged != nil {
		rec := perf.Record{RawSample: s.pending.room()}
		err := s.paged.ReadInto(&rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a perf buffer: %w", err)
		}
		// The program has counted those that found the buffer full.
		if rec.LostSamples > 0 {
			continue
		}
		if len(rec.RawSample) < eventSize {
			return fmt.Errorf("read a perf buffer: a record of %d bytes is shorter than an event", len(rec.RawSample))
		}
		s.shedder.saw(float64(rec.Remaining+len(rec.RawSample))/float64(s.paged.BufferSize()), 0, 0)
		s.pending.add(rec.RawSample)
	}
	return nil
}
