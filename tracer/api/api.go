// Package api is the local API of the node tracer: HTTP over a unix socket that
// only its owner may open.
//
//	GET /v1/traces?since=5m&limit=10        finished traces, newest first
//	GET /v1/traces?since=5m&follow=true     the same oldest first, then each as it finishes
//	GET /v1/messages?client=10.244.0.4:50202&id=49569   DNS messages as captured, as far as still in memory
//	GET /v1/status                          version, uptime, counters
//	GET /readyz, GET /healthz               200 while every hook is attached and packets are read, else 503 and why
//
// Traces are JSON lines, as [trace.Trace] encodes them. since goes back from now;
// left out, it means everything in memory, or with follow nothing but what
// comes. Between the lines of a follower that reads too slowly stands
// {"lost":N}: N traces are missing from there on. One that takes nothing for a minute is
// disconnected, and there are 16 readers of traces at most: more hear that it is busy.
//
// The header Dnstrace-Reach of that answer, and reach in the status, say from when on all
// lookups are in memory ([history.Reach], times in RFC 3339): ordinary ones, notable ones,
// which failed, were slow or have a finding, and those of clients of whom less is.
package api

import (
	"time"

	"github.com/dnstrace/dnstrace/tracer/history"
)

// DefaultPath is where the tracer and its readers expect the socket.
const DefaultPath = "/run/dnstrace/api.sock"

// Bounds of what readers cost. What is read stays in memory while they take their time,
// though the history has evicted it.
const (
	maxConns   = 64          // connections; more wait in the kernel
	maxReaders = 16          // of traces, at once
	patience   = time.Minute // with a reader that takes nothing: a pager that waits is disconnected
	idleWithin = time.Minute // a connection on which nothing is asked ends
	maxHeader  = 16 << 10
)

// reachHeader says how far back an answer goes.
const reachHeader = "Dnstrace-Reach"

// followQueue is how many traces may wait for one follower: a few seconds of a
// busy node, some megabytes at worst.
const followQueue = 4096

// Status says what the tracer is and how it fares.
type Status struct {
	Version  string            `json:"version"`
	Uptime   float64           `json:"uptime_seconds"`
	Counters map[string]uint64 `json:"counters"`
	Reach    history.Reach     `json:"reach"`
}

// Message is a DNS message as it was captured.
type Message struct {
	Time     time.Time `json:"time"` // at its first place
	Response bool      `json:"response"`
	Size     int       `json:"size"` // bytes on the wire
	Wire     []byte    `json:"wire"` // from its front, as far as captured
}

// Query chooses traces.
type Query struct {
	Since  time.Duration // how far back; 0: everything, with Follow nothing
	Limit  int           // at most so many of the past; 0: all
	Follow bool          // go on with those that finish from now on
}

// lostLine is the line that tells a follower what it missed.
type lostLine struct {
	Lost uint64 `json:"lost"`
}
