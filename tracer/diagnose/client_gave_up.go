package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// clientGaveUp finds a response that reached the client's own namespace and
// found its socket closed. Proof: the kernel's drop there for lack of a socket, and
// that no response came before, nor did the client go on otherwise.
func clientGaveUp(m *memory, t *trace.Trace) []trace.Finding {
	if t.Exchange == nil || !ClientClosed(t.Exchange) {
		return nil
	}
	ex := t.Exchange
	d := firstUntaken(ex)
	if m.wentOn(ex, ex.Time.Add(d.Offset.Duration())) {
		return nil
	}
	f := trace.Finding{
		Code:    ClientGaveUp,
		Summary: fmt.Sprintf("The response came %s after the query, when the client had closed its socket%s.", since(d.Offset), waitedFor(t, d.Offset)),
		Evidence: []string{
			dropQuote(ex, d) + ", in " + droppedWhere(t, d),
		},
		Advice: "Find what took so long, or have the client wait longer (`options timeout:` in its resolv.conf).",
	}
	if len(ex.Rejected) > 0 {
		f.Summary = fmt.Sprintf("The response came %s after the query. The client had closed its socket, after a response that it could not take.", since(d.Offset))
		f.Evidence = append(f.Evidence, rejections(ex)...)
		f.Advice = "See what sent the response that the client could not take, and what took so long."
	}
	if last, ok := lastSightingBefore(t, ex, trace.MessageResponse, d.Offset); ok {
		f.Evidence = append(f.Evidence, last)
	}
	if t.Query != nil {
		f.Evidence = append(f.Evidence, recorded(t)...)
	}
	return []trace.Finding{inDoubt(f, ex)}
}

// firstUntaken returns the drop of the first response for which the client had no socket any more:
// where it asked several times, others came after that.
func firstUntaken(ex *trace.Exchange) *trace.Drop {
	last := ex.LastDrop()
	for i := range ex.Drops {
		if d := &ex.Drops[i]; d.Message == trace.MessageResponse && noSocket(d) && d.Place() == last.Place() {
			return d
		}
	}
	return last
}

// takenBack finds a client that ended its connection before a response. Proof: the reset
// that it sent, and that no response had left its server.
func takenBack(t *trace.Trace) (trace.Finding, bool) {
	ex := t.Exchange
	if ex.Reset == nil || ex.Connects() || ex.Reset.Src != netip.AddrPortFrom(ex.ClientIP, ex.ClientPort) || responseSeen(t) {
		return trace.Finding{}, false
	}
	return trace.Finding{
		Code:     ClientGaveUp,
		Summary:  fmt.Sprintf("The client reset its TCP connection %s after the query, before a response.", since(ex.Reset.Offset)),
		Evidence: append(append(resetEvidence(ex), lastSightings(t, ex)...), recorded(t)...),
		Advice:   "Find what took so long, or why the client ended: its timeout, its own end, what it asked elsewhere meanwhile.",
	}, true
}

// waitedFor goes on with what the server waited for, if that was most of the time.
func waitedFor(t *trace.Trace, total trace.Seconds) string {
	if t.Query == nil || len(t.Upstreams) == 0 || t.Upstreams[0].Attempt == nil {
		return ""
	}
	var end trace.Seconds
	for i := range t.Upstreams {
		if at := t.Upstreams[i].Attempt; at != nil && at.Duration != nil {
			end = max(end, at.Start+*at.Duration)
		}
	}
	waited := end - t.Upstreams[0].Attempt.Start
	if waited <= total/2 {
		return ""
	}
	whom := "its upstreams"
	if len(t.Upstreams) == 1 {
		whom = "the upstream " + address(&t.Upstreams[0])
	}
	return fmt.Sprintf("; CoreDNS waited %s of that for %s", since(waited), whom)
}

// wentOn tells whether a client whose socket was closed at a time had gone on with its call
// by then: over TCP, after an answer of that socket was truncated, or with the answer of
// another server that it had asked the same.
func (m *memory) wentOn(ex *trace.Exchange, closed time.Time) bool {
	return slices.ContainsFunc(m.of(lookupKey{clientOf(ex), ex.QName}), func(s *seen) bool {
		switch {
		case s.protocol == "tcp":
			return ex.Protocol == "udp" && !s.start.Before(ex.Time) && !s.start.After(closed)
		case s.port != ex.ClientPort || s.end.After(closed):
			return false
		}
		return s.truncated || s.answered && s.dnsID == ex.ID && s.qtype == ex.QType && !s.end.Before(ex.Time)
	})
}

// WentOn tells of a lookup with its findings whether the client did not take the response
// because it needed it no more.
func WentOn(t *trace.Trace) bool {
	return t.Exchange != nil && ClientClosed(t.Exchange) && !slices.ContainsFunc(t.Diagnosis, func(f trace.Finding) bool {
		return f.Code == ClientGaveUp || f.Code == ForwardingLoop
	})
}

// ClientClosed tells whether the response came to the client when it had closed its socket.
func ClientClosed(ex *trace.Exchange) bool {
	d := ex.LastDrop()
	if ex.Outcome != trace.OutcomeDropped || d == nil || d.Message != trace.MessageResponse || !noSocket(d) {
		return false
	}
	client, known := ex.ClientPlace()
	return known && client == d.Place()
}
