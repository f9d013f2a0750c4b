package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// answeredError finds a lookup that got an error for an answer, where no rule knows why: it
// says who answered it, and what that server says of it. Proof: the response. What only
// fails (SERVFAIL) is the fault of a server as that of an upstream is; with any other code it
// declines to do what was asked.
func answeredError(m *memory, t *trace.Trace) []trace.Finding {
	if t.Role == trace.RoleUpstream || t.Outcome != trace.OutcomeAnswered || !errorCode(t.RCode) {
		return nil
	}
	f := trace.Finding{Code: RefusedByServer, Advice: declineAdvice(t.RCode)}
	if t.RCode == "SERVFAIL" {
		f.Code = UpstreamError
		f.Advice = "Ask it directly (`dig @ADDRESS NAME`), and see its log: the fault is there or further up (DNSSEC, the zone's servers)."
	}
	words := inWords(t.Exchange)
	if q := t.Query; q != nil {
		f.Advice = ownAdvice(q)
		switch last := lastHop(q); {
		case q.Error != "":
			words += ": " + q.Error
		case last != "":
			words += " by its plugin " + last
		}
	}
	f.Summary = fmt.Sprintf("%s answered %s to %s%s.", whoAnswered(t), t.RCode, request(t), words)
	if t.Query == nil {
		f = mishandledByServer(m, t, f)
	}
	if t.Exchange != nil {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s answered %s to %s after %s", server(t.Exchange), t.RCode, who(t.Exchange), orUnknown(t.Exchange.Duration)))
		f.Evidence = append(f.Evidence, ownWords(t.Exchange)...)
	}
	if q := t.Query; q != nil {
		f.Evidence = append(f.Evidence, recordedHow(q))
		if q.Error != "" {
			f.Evidence = append(f.Evidence, fmt.Sprintf("CoreDNS's own words: %q", q.Error))
		}
	}
	return []trace.Finding{inDoubt(f, t.Exchange)}
}

// ownAdvice says what to do about CoreDNS where it failed without an upstream.
func ownAdvice(q *trace.Query) string {
	switch last := lastHop(q); {
	case last == "":
		return "See CoreDNS's log for this moment."
	case q.RCode != "SERVFAIL":
		return declineAdvice(q.RCode)
	case last == "kubernetes":
		return "See whether CoreDNS reaches the API server (its log, the plugin ready): until it has all Services, it answers SERVFAIL."
	case last == "secondary":
		return "See whether CoreDNS could transfer the zone (its log, `transfer from` in `secondary`): until it has it, it answers SERVFAIL."
	default:
		return fmt.Sprintf("See `%s` in the Corefile, and CoreDNS's log for this moment.", last)
	}
}

// declineAdvice says what to do about a server that does not do what it was asked.
func declineAdvice(rcode string) string {
	switch rcode {
	case "NOTIMP":
		return "The server does not do this: send it to one that does (the zone's primary, for an UPDATE), or turn it on there."
	case "NOTAUTH", "NOTZONE":
		return "The server is not the zone's, or does not know the key (TSIG): compare zone, server and key on both sides."
	case "FORMERR", "BADVERS":
		return "The server does not understand the message (EDNS, an option, another version): see what the client sends (`dig +noedns` works?)."
	case "BADCOOKIE":
		return "The server wants its cookie, and a client that knows cookies asks again with it: see whether this one does."
	}
	return "See that server's log and configuration for this name and client."
}
