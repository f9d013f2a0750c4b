package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/filter"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

type runOptions struct {
	listen, api, metrics string
	listenOwner          string
	owner                unixsocket.Owner // listenOwner, as validate read it
	metricsLabels        []string
	outputs, records     []string
	ports                []uint
	netns                []string
	history, timeout     time.Duration
	historyMemory        string
	historyBytes         int // historyMemory, as validate read it
	sample               float64
	sampleInKernel       bool
	filter, kubernetes   string
}

func (o *runOptions) validate() ([]uint16, *filter.Filter, error) {
	ports, err := portNumbers(o.ports)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range o.records {
		if r != trace.KindExchange && r != trace.KindTrace {
			return nil, nil, usageError{fmt.Errorf("--record %s: expected exchange or trace", r)}
		}
	}
	if err := capture.CheckNetNS(o.netns); err != nil {
		return nil, nil, usageError{fmt.Errorf("--netns: %w", err)}
	}
	for _, l := range o.metricsLabels {
		if l != labelPod {
			return nil, nil, usageError{fmt.Errorf("--metrics-labels %s: expected pod", l)}
		}
	}
	if !(o.sample >= 0 && o.sample <= 1) {
		return nil, nil, usageError{fmt.Errorf("--sample %v: expected a rate from 0 (lookups that fail, are slow or have a finding only) to 1 (every lookup)", o.sample)}
	}
	if o.sampleInKernel && o.sampleRate() == nil {
		return nil, nil, usageError{errors.New("--sample-in-kernel: expected a --sample below 1, such as --sample 0.01")}
	}
	size, err := humanize.ParseBytes(o.historyMemory)
	if err != nil || size < leastHistoryMemory || size > math.MaxInt32 {
		return nil, nil, usageError{fmt.Errorf("--history-memory %s: expected a size from 1MiB to 2GiB, such as 64MiB", o.historyMemory)}
	}
	o.historyBytes = int(size)
	if o.listenOwner != "" {
		if o.owner, err = unixsocket.ParseOwner(o.listenOwner); err != nil {
			return nil, nil, usageError{fmt.Errorf("--listen-owner: %w", err)}
		}
	}
	if o.timeout <= 0 || o.history <= 0 {
		return nil, nil, usageError{errors.New("--timeout and --history: expected a duration above 0, such as 7s")}
	}
	var keep *filter.Filter
	if o.filter != "" {
		if keep, err = filter.Compile(o.filter); err != nil {
			return nil, nil, usageError{fmt.Errorf("--filter: %w", err)}
		}
		keep.Within(filterSteps)
	}
	return ports, keep, nil
}

// sampleRate returns the rate by which ordinary lookups are chosen, nil for all.
func (o *runOptions) sampleRate() *float64 {
	if o.sample >= 1 {
		return nil
	}
	return &o.sample
}

// sampleInPrograms returns the rate for the kernel, nil if it is to choose none.
func (o *runOptions) sampleInPrograms() *float64 {
	if !o.sampleInKernel {
		return nil
	}
	return o.sampleRate()
}

// chooseOwner makes sure that the record socket can be given to its owner, also when it is
// made again later.
func (o *runOptions) chooseOwner(stderr io.Writer) error {
	var err error
	if o.listenOwner != "" {
		if err = o.owner.Enter(); err != nil {
			return fmt.Errorf("--listen-owner %s: %w", o.listenOwner, err)
		}
		return nil
	}
	if o.owner, err = unixsocket.DefaultOwner(); err != nil {
		say(stderr, "%v", err)
	}
	return nil
}

func portNumbers(list []uint) ([]uint16, error) {
	if len(list) == 0 || len(list) > capture.MaxPorts {
		return nil, usageError{fmt.Errorf("--port: expected 1 to %d ports, got %d", capture.MaxPorts, len(list))}
	}
	var ports []uint16
	for _, p := range list {
		if p == 0 || p > 65535 {
			return nil, usageError{fmt.Errorf("--port %d: expected 1 to 65535", p)}
		}
		ports = append(ports, uint16(p))
	}
	return ports, nil
}
