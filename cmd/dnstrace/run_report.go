package main

import (
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/metrics"
	"github.com/dnstrace/dnstrace/tracer/pipeline"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// outputDropped counts the records that all outputs lost; with an output's name behind
// it, those of that one.
const outputDropped = "output_records_dropped"

// recordsRefused counts CoreDNS's records that were not taken; with a reason behind it,
// those of that one.
const recordsRefused = "plugin_records_refused"

func (n *node) outputStats() []metrics.Output {
	var all []metrics.Output
	for _, w := range n.outputs {
		written, dropped := w.Stats()
		all = append(all, metrics.Output{Name: w.Name(), Written: written, Dropped: dropped, Queued: w.Queued()})
	}
	return all
}

func (n *node) socketStates() map[string]unixsocket.State {
	return map[string]unixsocket.State{"records": n.receiver.State(), "api": n.api.State()}
}

func (n *node) status(c *pipeline.Counters) map[string]uint64 {
	counters := map[string]uint64{
		"events": c.Events, "lost_events": c.LostEvents, "shed_events": c.ShedEvents, "unsampled_events": c.UnsampledEvents, "traces": c.Traces,
		"plugin_records": c.Receive.Received, "plugin_records_unverified": c.UnverifiedRecords, "filter_failed": n.unfiltered.Load(),
		"orphan_responses": c.Orphans, "follower_lost_traces": n.history.Stats().LostQueued,
	}
	for reason, refused := range c.RefusedRecords() {
		counters[recordsRefused] += refused
		counters[recordsRefused+" "+reason] = refused
	}
	for _, o := range n.outputStats() {
		counters[outputDropped] += o.Dropped
		counters[outputDropped+" "+o.Name] += o.Dropped
	}
	return counters
}

// report says at the end what did not become a record: a reader of the output
// would be misled without it.
func (n *node) report(stderr io.Writer, c *pipeline.Counters) {
	say(stderr, "%d events, %d lost; %d traces; %d plugin records; %d queries unfinished",
		c.Events, c.LostEvents, c.Traces, c.Receive.Received, c.Unfinished)
	refused := c.RefusedRecords()
	for _, reason := range slices.Sorted(maps.Keys(refused)) {
		if refused[reason] > 0 {
			say(stderr, "%d plugin records refused: %s", refused[reason], reason)
		}
	}
	if c.UnverifiedRecords > 0 {
		say(stderr, "of %d plugin records it is not known whether the server sent them: nothing is concluded from them", c.UnverifiedRecords)
	}
	if c.ShedEvents > 0 {
		say(stderr, "%d events of lookups that were left out whole, to keep up", c.ShedEvents)
	}
	if c.UnsampledEvents > 0 {
		say(stderr, "%d events of lookups that --sample-in-kernel left out", c.UnsampledEvents)
	}
	for _, line := range n.limiter.Report() {
		say(stderr, "%s", line)
	}
	if err := n.receiver.LastError(); err != nil {
		say(stderr, "the last plugin record that was refused as it came: %v", err)
	}
	for _, o := range n.outputStats() {
		if o.Dropped > 0 {
			say(stderr, "output %s dropped %d records", o.Name, o.Dropped)
		}
	}
}

// captured returns the messages that are kept of a client, with their times in UTC.
func (n *node) captured(client netip.AddrPort, id uint16) []api.Message {
	var clock capture.Clock
	clock.Sync()
	var all []api.Message
	for _, m := range n.messages.Find(client, id) {
		all = append(all, api.Message{Time: clock.Wall(m.Time), Response: m.Response, Size: m.Size, Wire: m.Wire})
	}
	return all
}
