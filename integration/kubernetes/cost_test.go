//go:build kubernetes

package kubernetes

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settle is how long the tracer is left alone before it is measured, and measured how
// long it then is.
const (
	settle   = 10 * time.Second
	measured = 20 * time.Second
)

// BenchmarkTracer measures what the tracer costs in the cluster, with the manifests as
// they are, at some rates of lookups through a Service, each of a name of its own: by
// CoreDNS, which knows them not to exist, and by a server that takes so little of a
// machine with two cores that it leaves room for ten thousand.
func BenchmarkTracer(b *testing.B) {
	n := startNode(b, "iptables")
	n.install()
	n.startServers()
	for _, c := range []struct {
		server, addr, process string
		rate                  int
	}{
		{"none", "", "coredns", 0},
		{"coredns", dnsServer, "coredns", 1000},
		{"echo", echoServer, "pod", 1000},
		{"echo", echoServer, "pod", 10000},
		{"coredns", dnsServer, "coredns", 10000},
	} {
		b.Run(fmt.Sprintf("server=%s/lookups=%d", c.server, c.rate), func(b *testing.B) {
			for b.Loop() {
				n.measure(b, c.addr, c.process, c.rate)
			}
		})
	}
}

// measure reports memory and CPU time of the tracer, and CPU time of the server beside it
// (with the load, where both are a pod).
func (n *node) measure(b *testing.B, server, process string, rate int) {
	if rate > 0 {
		n.startLoad(rate, server, "kubernetes.default.svc.cluster.local")
	}
	began := time.Now()
	time.Sleep(settle)
	tracer, beside := n.cpuTime("dnstrace"), n.cpuTime(process)
	started := time.Now()
	time.Sleep(measured)
	elapsed := time.Since(started)
	b.ReportMetric(100*(n.cpuTime("dnstrace")-tracer).Seconds()/elapsed.Seconds(), "tracer-%cpu")
	b.ReportMetric(100*(n.cpuTime(process)-beside).Seconds()/elapsed.Seconds(), process+"-%cpu")
	b.ReportMetric(n.memory("VmRSS"), "tracer-MB")
	b.ReportMetric(n.memory("VmHWM"), "tracer-peak-MB")
	if rate > 0 {
		c := n.endLoad()
		b.ReportMetric(float64(c.asked)/time.Since(began).Seconds(), "asked/s")
		b.ReportMetric(float64(c.retried), "retried")
	}
	b.ReportMetric(0, "ns/op")
}

// processes returns the processes of the node's pods that have a name.
func (n *node) processes(name string) []string {
	out, err := n.Exec("pgrep", "-x", name)
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Fields(out)
}

// cpuTime returns the user and system time of all processes of a name.
func (n *node) cpuTime(name string) time.Duration {
	const ticks = 100 // a second (USER_HZ)
	total := 0
	for _, pid := range n.processes(name) {
		out, err := n.Exec("cat", filepath.Join("/proc", pid, "stat"))
		if err != nil {
			n.t.Fatal(err)
		}
		// Behind the name in brackets: utime and stime are fields 14 and 15 (proc_pid_stat(5)).
		_, rest, _ := strings.Cut(out, ") ")
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] {
			value, err := strconv.Atoi(field)
			if err != nil {
				n.t.Fatal(err)
			}
			total += value
		}
	}
	return time.Duration(total) * time.Second / ticks
}

// memory returns a line of the tracer's /proc/PID/status, in megabytes.
func (n *node) memory(what string) float64 {
	out, err := n.Exec("cat", filepath.Join("/proc", n.processes("dnstrace")[0], "status"))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, what+":"); ok {
			kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				n.t.Fatal(err)
			}
			return float64(kilobytes) / 1024
		}
	}
	n.t.Fatalf("no %s in %s", what, out)
	return 0
}
