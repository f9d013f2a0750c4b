// Package diagnose is the fourth step of the tracer: it names the cause of what
// went wrong with a lookup, from its trace and from what was seen shortly before.
//
// A rule fires only on proof, and quotes it. Where nothing proves a cause, the
// finding says what was seen last and where, and stops there. Each rule is in a
// file of its own, which says what proves it.
package diagnose

import (
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Codes of findings: the names are stable.
const (
	CachedFailure           = "cached-failure"
	ClientGaveUp            = "client-gave-up"
	ConcurrencyLimit        = "concurrency-limit"
	ConntrackFull           = "conntrack-full"
	ConntrackRace           = "conntrack-race"
	DroppedByBPF            = "dropped-by-bpf"
	DroppedByNetfilter      = "dropped-by-netfilter"
	DroppedNoSocket         = "dropped-no-socket"
	DroppedOther            = "dropped-other"
	DroppedReceiveBuffer    = "dropped-receive-buffer"
	ForwardingLoop          = "forwarding-loop"
	InconsistentAnswers     = "inconsistent-answers"
	ListenQueueFull         = "listen-queue-full"
	NoResponseSeen          = "no-response-seen"
	NXDomainStorm           = "nxdomain-storm"
	OversizedResponse       = "oversized-response"
	PathMTU                 = "path-mtu"
	QueryNeverArrived       = "query-never-arrived"
	RefusedByServer         = "refused-by-server"
	ResponseLost            = "response-lost"
	ResponseRejected        = "response-rejected"
	Retransmission          = "retransmission"
	SearchPathShadowed      = "search-path-shadowed"
	SearchPathAmplification = "search-path-amplification"
	ServerOverloaded        = "server-overloaded"
	ServerSlow              = "server-slow"
	SlowUpstream            = "slow-upstream"
	StaleEndpoint           = "stale-endpoint"
	TruncatedNotRetried     = "truncated-not-retried"
	TruncatedRetry          = "truncated-retry"
	TypeIgnored             = "type-ignored"
	UnexpectedSource        = "unexpected-source"
	UpstreamError           = "upstream-error"
	UpstreamTimeout         = "upstream-timeout"
	UpstreamUnhealthy       = "upstream-unhealthy"
)

// Codes are the codes that rules have, in order of the alphabet.
var Codes = []string{
	CachedFailure, ClientGaveUp, ConcurrencyLimit, ConntrackFull, ConntrackRace, DroppedByBPF, DroppedByNetfilter, DroppedNoSocket, DroppedOther, DroppedReceiveBuffer,
	ForwardingLoop, InconsistentAnswers, ListenQueueFull, NoResponseSeen, NXDomainStorm, OversizedResponse, PathMTU, QueryNeverArrived, RefusedByServer, ResponseLost, ResponseRejected,
	Retransmission, SearchPathAmplification, SearchPathShadowed, ServerOverloaded, ServerSlow, SlowUpstream, StaleEndpoint, TruncatedNotRetried, TruncatedRetry, TypeIgnored,
	UnexpectedSource, UpstreamError, UpstreamTimeout, UpstreamUnhealthy,
}

// slow is the time that a person waits for a lookup before calling it slow; the
// plugin's own default for `slow`. A recursion across the Internet takes some
// hundred milliseconds and is not slow.
const slow = 500 * time.Millisecond

// rule looks at a trace, and at what is remembered of earlier ones, and returns
// what it finds.
type rule func(*memory, *trace.Trace) []trace.Finding

// rules in the order in which findings are shown, but for [Order]: what happened to the
// client first, then what happened further up.
var rules = []rule{
	clientGaveUp, lost, listenQueueFull, pathMTU, missing, oversizedResponse, concurrencyLimit, refusedByServer,
	serverOverloaded, serverSlow, rejectedUpstream, respelled, typeIgnored, upstreamTimeout, upstreamError, slowUpstream, cachedFailure,
	inconsistentAnswers, truncatedNotRetried, truncatedRetry,
}

// comparing are those of rules that find something in lookups that are healthy by themselves.
var comparing = []rule{inconsistentAnswers}

// patterns are the rules of what only many lookups show.
var patterns = []rule{upstreamUnhealthy, searchShadowed, searchPath, nxdomainStorm}

// Diagnoser names causes. It remembers as much of earlier traces as its rules
// need, within bounds, and has no clock: time is what traces say. It is for one
// goroutine.
type Diagnoser struct{ memory *memory }

// New returns a Diagnoser that has seen nothing.
func New() *Diagnoser { return &Diagnoser{newMemory()} }

// Trace returns what is wrong with a lookup, empty when it is healthy; traces
// come in the order in which they are complete. A finding that only several
// lookups prove is with the lookup that completes the proof.
func (d *Diagnoser) Trace(t *trace.Trace) []trace.Finding {
	findings := []trace.Finding{}
	seen := t
	if t.Query != nil && t.Recorded() == nil {
		if t.Exchange == nil {
			return findings // it is words alone
		}
		packets := *t
		packets.Query = nil
		seen = &packets
	}
	if t.Role == trace.RoleUpstream && t.Exchange != nil {
		seen = withoutLookup(t)
	}
	if f, ok := forwardingLoop(seen); ok {
		d.memory.add(seen)
		return append(findings, f) // whatever else went wrong did so because of it
	}
	d.memory.learnUpstreams(seen)
	d.memory.learnFailures(seen)
	apply := rules
	if healthy(seen) {
		apply = comparing
	}
	for _, r := range apply {
		findings = append(findings, r(d.memory, seen)...)
	}
	findings = append(findings, retransmission(seen, findings)...)
	for _, r := range patterns {
		findings = append(findings, r(d.memory, seen)...)
	}
	if len(findings) == 0 {
		findings = append(findings, answeredError(d.memory, seen)...)
	}
	Order(findings)
	endedBy(seen, findings)
	d.memory.add(seen)
	return findings
}

// withoutLookup returns an upstream query whose lookup is not known as the rules see
// it: no client's, and made by no attempt that is known.
func withoutLookup(t *trace.Trace) *trace.Trace {
	u := trace.Upstream{Exchange: t.Exchange, Join: trace.JoinNone, Query: t.Query, Upstreams: t.Upstreams}
	return &trace.Trace{Header: t.Header, QName: t.QName, QType: t.QType, RCode: t.RCode, Outcome: t.Outcome, Role: t.Role, Upstreams: []trace.Upstream{u}}
}
