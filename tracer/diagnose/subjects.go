package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// subject is an exchange of a trace with the words for it.
type subject struct {
	exchange *trace.Exchange
	attempt  *trace.Attempt // nil for the client's
	upstream bool
	earlier  bool // another exchange of the same attempt followed it
	// Which of several transmissions of the client's query it is; 0: all, or it was sent once.
	transmission int
}

// subjects returns the exchanges of a trace: the client's, then those upstream.
func subjects(t *trace.Trace) []subject {
	var all []subject
	if t.Exchange != nil {
		all = append(all, subject{exchange: t.Exchange})
	}
	return appendUpstreams(all, t.Upstreams)
}

func appendUpstreams(all []subject, upstreams []trace.Upstream) []subject {
	for i := range upstreams {
		u := &upstreams[i]
		for _, ex := range u.Exchanges() {
			all = append(all, subject{exchange: ex, attempt: u.Attempt, upstream: true, earlier: ex != u.Exchange})
		}
		all = appendUpstreams(all, u.Upstreams)
	}
	return all
}

// name says which query of the trace it is.
func (s subject) name() string {
	connects := s.exchange.Connects()
	switch {
	case !s.upstream && connects:
		return "the client's attempt to connect over TCP"
	case !s.upstream && s.transmission > 0:
		return "the client's " + ordinal(s.transmission) + " query"
	case !s.upstream:
		return "the client's query"
	case s.attempt == nil && connects:
		return fmt.Sprintf("the attempt to connect over TCP to the upstream %s", server(s.exchange))
	case s.attempt == nil:
		return fmt.Sprintf("the upstream query to %s", server(s.exchange))
	case connects:
		return "the connection of " + attemptName(s.attempt)
	case s.earlier:
		return "an earlier query of " + attemptName(s.attempt)
	}
	return "the query of " + attemptName(s.attempt)
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

// endedAs says how an attempt ended, in CoreDNS's own words where it has any.
func endedAs(at *trace.Attempt) string {
	text := attemptName(at) + " ended"
	if at.Outcome != "" {
		text += " as " + at.Outcome
	}
	if at.Duration != nil {
		text += " after " + since(*at.Duration)
	}
	if at.Error != "" {
		text += ": " + at.Error
	}
	return text
}

// ordinal is which of several something is, counted from 1.
func ordinal(n int) string {
	if words := []string{"first", "second", "third", "fourth", "fifth"}; n <= len(words) {
		return words[n-1]
	}
	return fmt.Sprintf("%dth", n)
}
