package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

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
	if l.exchange.Connects() {
		return "the client's attempt to connect over TCP"
	}
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
