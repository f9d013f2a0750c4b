package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cpuTime returns the CPU time that the threads of a process took: to the
// nanosecond, where /proc/PID/stat counts in steps of ten milliseconds.
func cpuTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, errors.New("this kernel has no /proc/PID/task/TID/schedstat: it needs CONFIG_SCHED_INFO")
	}
	var sum time.Duration
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		onCPU, _, _ := bytes.Cut(content, []byte(" "))
		ns, err := strconv.ParseInt(string(onCPU), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// memory is what a process holds, in bytes.
type memory struct {
	// peak is the most that was resident so far. The kernel counts BPF's ring
	// buffers twice, as they are mapped twice in a row, and the program's file.
	peak int64
	// own is what is resident now and of no file.
	own int64
}

// memoryOf reads what a process holds (proc_pid_status(5)).
func memoryOf(pid int) (m memory, err error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	content, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmHWM": &m.peak, "RssAnon": &m.own}[key]
		if into == nil {
			continue
		}
		kilobytes, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseInt(kilobytes, 10, 64)
		if err != nil {
			return m, fmt.Errorf("%s: %s: %w", path, key, err)
		}
		*into = n << 10
	}
	return m, nil
}

// programIDs returns the ids of the BPF programs that a process holds: a link
// names its program, too (kernel/bpf/syscall.c, bpf_link_show_fdinfo).
func programIDs(pid int) ([]uint32, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(content)) {
			value, found := strings.CutPrefix(line, "prog_id:")
			if !found {
				continue
			}
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if !slices.Contains(ids, uint32(id)) {
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// scrapeTimeout is how long a busy machine may take to answer.
const scrapeTimeout = 10 * time.Second

// scrape reads the metrics without labels that a process serves to Prometheus.
func scrape(ctx context.Context, addr string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics of dnstrace: %w", err)
	}
	defer resp.Body.Close()
	values := make(map[string]float64)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, "#") {
			continue
		}
		if values[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("metrics of dnstrace: %w", err)
		}
	}
	return values, lines.Err()
}
