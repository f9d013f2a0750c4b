package main

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

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
