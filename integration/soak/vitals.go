package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// sampleEvery is how often the processes are looked at.
const sampleEvery = 2 * time.Second

// Names of what is watched: of each process what may leak.
const (
	memoryOwn  = "memory of no file (MiB)"
	heap       = "heap in use (MiB)"
	files      = "file descriptors"
	goroutines = "goroutines"
	bpfMaps    = "BPF maps"
	bpfMemory  = "memory of BPF maps (MiB)"
	packets    = "packets a second"
)

// sample is what was watched at one time, by process and what.
type sample map[vital]float64

type vital struct{ process, what string }

// watch looks at both processes until ctx ends.
func (n *node) watch(ctx context.Context) ([]sample, error) {
	var all []sample
	var seen float64 // packets so far, shed and lost ones included
	for sleep(ctx, sampleEvery) {
		s := sample{}
		for _, p := range []*lab.Process{n.tracer, n.coredns} {
			name := p.Name
			own, err := ownMemory(p.Pid())
			if err != nil {
				return nil, err
			}
			open, err := openFiles(p.Pid())
			if err != nil {
				return nil, err
			}
			s[vital{name, memoryOwn}], s[vital{name, files}] = mebibytes(own), float64(open.files)
			if p == n.tracer {
				s[vital{name, bpfMaps}], s[vital{name, bpfMemory}] = float64(open.maps), mebibytes(open.locked)
			}
			metrics, err := n.scrape(ctx, p)
			if ctx.Err() != nil {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			s[vital{name, goroutines}] = metrics["go_goroutines"]
			if p == n.tracer {
				now := metrics["dnstrace_events_total"] + metrics["dnstrace_lost_events_total"] + metrics["dnstrace_shed_events_total"]
				s[vital{name, packets}] = (now - seen) / sampleEvery.Seconds()
				seen = now
			}
			s[vital{name, heap}] = mebibytes(int64(metrics["go_memstats_heap_inuse_bytes"]))
		}
		all = append(all, s)
	}
	return all, nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// ownMemory returns the bytes that are resident and of no file
// (proc_pid_status(5)): the file of the program and the rings are not.
func ownMemory(pid int) (int64, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		value, found := strings.CutPrefix(line, "RssAnon:")
		if !found {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		return kilobytes << 10, nil
	}
	return 0, fmt.Errorf("%s: no RssAnon", path)
}

// held is what a process has open.
type held struct {
	files, maps int
	locked      int64 // bytes of the maps
}

// openFiles counts what a process has open; a BPF map says how much memory it takes
// (kernel/bpf/syscall.c, bpf_map_show_fdinfo).
func openFiles(pid int) (h held, err error) {
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return h, err
	}
	seen := map[string]bool{}
	for _, file := range infos {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		h.files++
		fields := map[string]string{}
		for line := range strings.Lines(string(content)) {
			key, value, _ := strings.Cut(line, ":")
			fields[key] = strings.TrimSpace(value)
		}
		id, isMap := fields["map_id"]
		if !isMap || seen[id] {
			continue
		}
		seen[id] = true
		h.maps++
		locked, err := strconv.ParseInt(fields["memlock"], 10, 64)
		if err != nil {
			return h, fmt.Errorf("%s: memlock: %w", file, err)
		}
		h.locked += locked
	}
	return h, nil
}
