package diagnose

import (
	"fmt"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// longWait is a wait in the server's socket that scheduling on a busy node does
// not explain.
const longWait = 250 * time.Millisecond

// serverOverloaded finds a query that waited for the server to read it. Proof:
// it arrived in the server's namespace, for the last time before CoreDNS read it,
// and CoreDNS's record starts much later, on the same clock.
func serverOverloaded(_ *memory, t *trace.Trace) []trace.Finding {
	if t.Exchange == nil || t.Query == nil {
		return nil
	}
	read := t.OnClientClock(t.Query.Time) // as the packets' times are
	arrived, at, ok := arrival(t.Exchange, read)
	if !ok {
		return nil
	}
	wait := read.Sub(arrived)
	if wait < longWait {
		return nil
	}
	return []trace.Finding{inDoubt(trace.Finding{
		Code:    ServerOverloaded,
		Summary: fmt.Sprintf("The query waited %s in the server's socket before the server read it.", took(wait)),
		Evidence: []string{
			fmt.Sprintf("the query came to %s, device %s, %s after the client sent it", netns(at.NetNSName, at.NetNS), at.IfName, since(at.Offset)),
			fmt.Sprintf("CoreDNS's record of it starts %s later and takes %s", took(wait), orUnknown(t.Query.DNS.Duration)),
		},
		Advice: "See its CPU limit (`container_cpu_cfs_throttled_periods_total`) and the load of its node; add replicas or a node-local cache.",
	}, t.Exchange)}
}

// arrival returns when the query last came to its server's namespace before the
// server read it. Only of a server that was seen answering the clock is known.
func arrival(ex *trace.Exchange, read time.Time) (time.Time, *trace.Sighting, bool) {
	var from *trace.Sighting
	for i := range ex.Path {
		if s := &ex.Path[i]; s.Message == trace.MessageResponse {
			from = s
			break
		}
	}
	if from != nil && from.Direction != trace.DirectionTX {
		return time.Time{}, nil, false
	}
	for i := len(ex.Path) - 1; i >= 0; i-- {
		s := &ex.Path[i]
		if s.Message != trace.MessageQuery || s.Direction != trace.DirectionRX || from != nil && s.NetNS != from.NetNS {
			continue
		}
		if at := ex.Time.Add(s.Offset.Duration()); !at.After(read) {
			return at, s, true
		}
	}
	return time.Time{}, nil, false
}
