// Package diagnose is the fourth step of the tracer: it names the cause of what
// went wrong with a lookup, from its trace alone.
//
// A rule fires only on proof, and quotes it. Where nothing proves a cause, the
// finding says what was seen last and where, and stops there.
package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Codes of findings: the names are stable.
const (
	UpstreamTimeout    = "upstream-timeout"
	DroppedByNetfilter = "dropped-by-netfilter"
	DroppedNoSocket    = "dropped-no-socket"
	DroppedOther       = "dropped-other"
	NoResponseSeen     = "no-response-seen"
	QueryNeverArrived  = "query-never-arrived"
	ResponseLost       = "response-lost"
	ClientGaveUp       = "client-gave-up"
)

// rule looks at a trace and returns what it finds.
type rule func(*trace.Trace) []trace.Finding

// rules in the order in which findings are shown: what happened to the client
// first, then what happened further up.
var rules = []rule{clientGaveUp, drops, missing, upstreamTimeout}

// Trace returns what is wrong with a lookup; empty when it is healthy.
func Trace(t *trace.Trace) []trace.Finding {
	findings := []trace.Finding{}
	for _, r := range rules {
		findings = append(findings, r(t)...)
	}
	return findings
}

// leg is an exchange of a trace with the words for it.
type leg struct {
	exchange *trace.Exchange
	attempt  *trace.Attempt // nil for the client's
	upstream bool
}

// legs returns the exchanges of a trace: the client's, then those upstream.
func legs(t *trace.Trace) []leg {
	var all []leg
	if t.Exchange != nil {
		all = append(all, leg{exchange: t.Exchange})
	}
	return appendUpstreams(all, t.Upstreams)
}

func appendUpstreams(all []leg, upstreams []trace.Upstream) []leg {
	for i := range upstreams {
		u := &upstreams[i]
		if u.Exchange != nil {
			all = append(all, leg{exchange: u.Exchange, attempt: u.Attempt, upstream: true})
		}
		all = appendUpstreams(all, u.Upstreams)
	}
	return all
}

// name says which query of the trace it is.
func (l leg) name() string {
	if !l.upstream {
		return "the client's query"
	}
	if l.attempt != nil {
		return "the query of " + attemptName(l.attempt)
	}
	return fmt.Sprintf("the upstream query to %s", server(l.exchange))
}

// attemptName says which attempt; the grpc plugin does not always tell where it
// went.
func attemptName(at *trace.Attempt) string {
	if at.Address == "" {
		return fmt.Sprintf("attempt %d", at.Attempt)
	}
	return fmt.Sprintf("attempt %d to %s", at.Attempt, at.Address)
}

func server(ex *trace.Exchange) string {
	return fmt.Sprintf("%s port %d", ex.ServerIP, ex.ServerPort)
}

// netns names a network namespace.
func netns(name string, inode uint32) string {
	switch {
	case name != "":
		return "namespace " + name
	case inode != 0:
		return fmt.Sprintf("namespace %d", inode)
	}
	return "an unknown namespace"
}

// device names a device, which a packet on its way out does not have yet.
func device(name string) string {
	if name == "" {
		return "before it had a device"
	}
	return "at device " + name
}

// lastSighting quotes the last place where a message was seen.
func lastSighting(ex *trace.Exchange, message string) (string, bool) {
	for i := len(ex.Path) - 1; i >= 0; i-- {
		if s := &ex.Path[i]; s.Message == message {
			verb := "received from"
			if s.Direction == trace.DirectionTX {
				verb = "sent to"
			}
			return fmt.Sprintf("the %s was last seen %s after %s, %s device %s in %s (%s > %s)",
				message, since(s.Offset), "the client sent it", verb, s.IfName, netns(s.NetNSName, s.NetNS), s.Src, s.Dst), true
		}
	}
	return "", false
}

// since writes a duration the way people compare them: three digits and a unit.
func since(s trace.Seconds) string {
	d := s.Duration()
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.3gµs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3gms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.3fs", d.Seconds())
}
