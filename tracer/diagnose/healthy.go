package diagnose

import "github.com/dnstrace/dnstrace/trace"

// healthy tells what nearly all lookups are, by a few comparisons: one query over UDP with one
// answer of use, soon, of which nothing was lost or refused, and of which no more is known. None of the
// rules but those of comparing finds anything in it.
func healthy(t *trace.Trace) bool {
	ex := t.Exchange
	switch {
	case ex == nil, t.Query != nil, len(t.Upstreams) > 0, t.Role != "", t.Stopped:
	case ex.Protocol != "udp", ex.Outcome != trace.OutcomeAnswered, ex.RCode != "NOERROR", t.RCode != "NOERROR", ex.Truncated:
	case ex.Duration == nil, ex.Duration.Duration() >= min(longWait, slow), ex.Transmissions > 1:
	case len(ex.Drops) > 0, len(ex.Rejected) > 0, ex.ICMP != nil, ex.Reset != nil, ex.Fragments != nil, ex.ListenFull:
	case ex.ResponseSize == nil, *ex.ResponseSize > ex.BufSize:
	default:
		return true
	}
	return false
}
