package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// whyConnect says what an attempt to connect was for, as far as that is known:
// its packets carry no question, but the lookup that it goes on with had one.
func whyConnect(m *memory, t *trace.Trace) []string {
	if c := m.calls[callID(t)]; c != nil {
		for _, s := range c.lookups {
			if s.truncated {
				return []string{fmt.Sprintf("the response over UDP for %s %s had TC set %s before: the client asks again over TCP (trace %s)",
					s.key.name, s.qtype, took(t.Time.Sub(s.end)), s.id)}
			}
		}
	}
	return []string{"no connection, no question: what the client wanted to ask is not known"}
}

// noConnection is what is known of an attempt to connect that nobody answered and
// of which no drop was seen. The client asked more than once: it was not refused
// either.
func noConnection(m *memory, t *trace.Trace) trace.Finding {
	ex := t.Exchange
	f := trace.Finding{
		Code:     NoResponseSeen,
		Summary:  fmt.Sprintf("Nothing answered the attempt to connect over TCP to %s%s.", server(ex), lastPlace(t, ex, trace.MessageQuery)),
		Evidence: append(lastSightings(t, ex), fmt.Sprintf("it was sent %d times", ex.Transmissions)),
		Advice:   "Look for what drops TCP to port 53 on the way, where UDP passes: a network policy, a security group, a firewall beyond this node.",
	}
	if ex.Milestones.Query.Arrived.Seen() {
		f.Advice = "Look in that namespace first: `ss -lnt` (a full listen queue has Recv-Q above Send-Q), `nstat -az TcpExtListenOverflows`."
	}
	if answered(ex) && ex.Milestones.Response.Arrived == trace.NotSeen {
		f.Code = ResponseLost
		f.Summary = fmt.Sprintf("The server %s accepted the client's TCP connection, and that did not reach the client%s.", server(ex), lastPlace(t, ex, trace.MessageResponse))
	}
	f.Evidence = append(append(f.Evidence, dropsElsewhere(t, ex)...), whyConnect(m, t)...)
	return f
}
