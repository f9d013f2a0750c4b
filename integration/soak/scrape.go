package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// scrapeTimeout is how long a busy machine may take to answer.
const scrapeTimeout = 10 * time.Second

// scrape reads what a process serves to Prometheus: the sum of each metric over its
// labels.
func (n *node) scrape(ctx context.Context, p *lab.Process) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	addr, dial := n.metrics, (&net.Dialer{}).DialContext
	if p == n.coredns {
		addr, dial = corednsMetrics, n.dialCoreDNS
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	// A connection each: what stays open would be counted among its files.
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", p.Name, err)
	}
	defer resp.Body.Close()
	sums := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %q: %w", p.Name, line, err)
		}
		sums[name] += v
	}
	return sums, nil
}

// dialCoreDNS connects inside CoreDNS's namespace.
func (n *node) dialCoreDNS(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = n.Host(lab.CoreDNS).Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// counted is what both processes counted, at the end.
type counted struct {
	tracer, coredns map[string]float64
}

func (n *node) count(ctx context.Context) (c counted, err error) {
	if c.tracer, err = n.scrape(ctx, n.tracer); err != nil {
		return c, err
	}
	c.coredns, err = n.scrape(ctx, n.coredns)
	return c, err
}

// What may keep a lookup from its trace, as the tracer counts it: in packets, and in
// lookups or records.
var (
	lostPackets = []string{"dnstrace_lost_events_total", "dnstrace_shed_events_total"}
	lostLookups = []string{
		"dnstrace_discarded_exchanges_total", "dnstrace_evicted_total", "dnstrace_output_records_dropped_total", "dnstrace_sampled_out_total",
	}
)

// ofNoLookup counts packets that the tracer saw and can tell in no trace.
var ofNoLookup = []string{"dnstrace_not_dns_total", "dnstrace_orphan_responses_total", "dnstrace_unreadable_segments_total"}

// leastSightings is of how many packets a lookup's client leg is at least: the query
// of a pod, which itself is not observed, comes in at the node's end of its link and
// at the bridge, and is dropped.
const leastSightings = 3

// explain tells whether what is counted as lost is enough for what lacks: all packets
// of a lookup that has none, and one for each that says so.
func (c counted) explain(k *tally) bool {
	return float64(leastSightings*(k.missing+k.alone)+k.holes) <= c.sum(lostPackets)+leastSightings*c.sum(lostLookups)
}

func (c counted) sum(names []string) (sum float64) {
	for _, name := range names {
		sum += c.tracer[name]
	}
	return sum
}
