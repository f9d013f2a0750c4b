package main

import (
	"io"
	"net/netip"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/metrics"
	"github.com/dnstrace/dnstrace/tracer/pipeline"
	"github.com/dnstrace/dnstrace/tracer/unixsocket"
)

// outputDropped counts the records that all outputs lost; with an output's name behind
// it, those of that one.
const outputDropped = "output_records_dropped"

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
		"plugin_records": c.Receive.Received, "plugin_records_malformed": c.Receive.Malformed,
		"plugin_records_dropped": c.Receive.Dropped, "orphan_responses": c.Orphans,
		"follower_lost_traces": n.history.Stats().LostQueued, "filter_failed": n.unfiltered.Load(),
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
	say(stderr, "%d events, %d lost; %d traces; %d plugin records, %d malformed, %d dropped; %d queries unfinished",
		c.Events, c.LostEvents, c.Traces, c.Receive.Received, c.Receive.Malformed, c.Receive.Dropped, c.Unfinished)
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
		say(stderr, "the last malformed plugin record: %v", err)
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
