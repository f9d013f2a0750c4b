package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// statusPatience bounds the question to a running tracer.
const statusPatience = 2 * time.Second

// losses are counters of a running tracer that should be 0, and what to do where
// one is not.
var losses = []struct{ counter, what, lost, remedy string }{
	{"lost_events", "packets", "lookups of that time may lack packets; their records say so (lost_events)",
		"give the tracer more CPU time: `dnstrace_hook_lost_events_total` says which hook lost them"},
	{recordsRefused, "records of CoreDNS", "traces of that time lack CoreDNS's side, if it was CoreDNS that sent them",
		"queue: give the tracer more CPU time; malformed, field: let CoreDNS and the tracer be of one version; sender, rate: see who else writes to the record socket"},
	{"plugin_records_unverified", "proof of who sent records", "records are shown and nothing is concluded from them",
		"run the tracer in the node's PID namespace (hostPID: true), and let it observe CoreDNS's network namespace"},
	{outputDropped, "records not written", "they are missing from the output and all behind it",
		"let the receiver or reader take more (standard error of `dnstrace run` says what is wrong), or free the disk; `--sample 0.1` writes less"},
	{"filter_failed", "records at the filter", "those for which --filter fails, or for which it had no time, are not written", "ask for less with --filter"},
	{"follower_lost_traces", "traces for slow readers", "`dnstrace watch` or another reader of the local API missed them", "filter what is watched with -f"},
}

// running returns what a tracer that runs here has lost; nothing where none runs, which is
// no error.
func running(ctx context.Context, path string) []capture.Finding {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	client := api.NewClient(path)
	status, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	up := time.Duration(status.Uptime * float64(time.Second)).Round(time.Second)
	findings := []capture.Finding{{What: "running tracer", OK: true, Detail: fmt.Sprintf("version %s for %s, %d traces", status.Version, up, status.Counters["traces"])}}
	if err := client.Ready(ctx); err != nil {
		findings = append(findings, capture.Finding{What: "its work", Detail: err.Error(),
			Lost: "lookups, or CoreDNS's side of them", Remedy: "mend what the line says, or start the tracer anew"})
	}
	for _, l := range losses {
		if n := status.Counters[l.counter]; n > 0 {
			findings = append(findings, capture.Finding{What: "lost " + l.what, Detail: fmt.Sprintf("%d since its start%s", n, parts(status.Counters, l.counter)), Lost: l.lost, Remedy: l.remedy})
		}
	}
	return findings
}

// parts names what a counter is the sum of, as far as that has any.
func parts(counters map[string]uint64, counter string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(counters)) {
		if name, ok := strings.CutPrefix(key, counter+" "); ok && counters[key] > 0 {
			list = append(list, fmt.Sprintf("%d by %s", counters[key], name))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}
