package diagnose

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// refusedByServer finds a server that does not serve the client or the name.
// Proof: it answered REFUSED of its own accord: its record says so, and no
// upstream did, as far as their packets or that record tell.
func refusedByServer(m *memory, t *trace.Trace) []trace.Finding {
	if t.RCode != "REFUSED" || t.Exchange == nil && t.Query == nil {
		return nil
	}
	if anyUpstream(t.Upstreams, func(u *trace.Upstream) bool { return u.Exchange != nil && u.Exchange.RCode == "REFUSED" }) {
		return nil
	}
	if _, passedOn := forwarded(t); passedOn || failedFromCache(t.Query) || t.Query != nil && strings.Contains(t.Query.Error, maxConcurrentError) {
		return nil // that has a finding of its own
	}
	f := trace.Finding{
		Code:    RefusedByServer,
		Summary: fmt.Sprintf("%s refused to answer %s%s.", whoAnswered(t), request(t), inWords(t.Exchange)),
		Advice:  "See whether that server is meant to answer for this name, and for this client: its access list, its zones, recursion.",
	}
	if t.Exchange != nil {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s answered REFUSED to %s after %s", server(t.Exchange), who(t.Exchange), orUnknown(t.Exchange.Duration)))
	}
	f.Evidence = append(f.Evidence, ownWords(t.Exchange)...)
	q := t.Query
	if q == nil {
		if isCoreDNS(t) {
			f.Advice = "See that the Corefile has a server block for this name, and that no `acl` or `view` there turns this client away."
		}
		return []trace.Finding{inDoubt(mishandledByServer(m, t, f), t.Exchange)}
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("%s, outcome %s, zone %q, %s", recordedHow(q), q.Outcome, q.Zone, english.Plural(len(q.Upstreams), "upstream attempt", "")))
	switch last := lastHop(q); {
	case q.Error != "":
		f.Summary = fmt.Sprintf("CoreDNS refused to answer %s %s: %s.", t.QName, t.QType, q.Error)
		f.Advice = "The words are CoreDNS's own: see the plugin that says them in the Corefile."
	case q.AnsweredBy == "" && last == "":
		f.Summary = fmt.Sprintf("CoreDNS refused to answer %s %s: no server block serves the name.", t.QName, t.QType)
		f.Advice = "See that the Corefile has a server block for this name, and that no `view` there turns this client away."
	case last != "":
		f.Summary = fmt.Sprintf("CoreDNS's plugin %s refused to answer %s %s.", last, t.QName, t.QType)
		f.Advice = fmt.Sprintf("See `%s` in the Corefile: whom, and which names, it turns away.", last)
	}
	return []trace.Finding{f}
}

// lastHop returns the plugin that a query had come to last, or that answered it; empty if
// it came to none.
func lastHop(q *trace.Query) string {
	switch {
	case q.AnsweredBy != "":
		return q.AnsweredBy
	case len(q.Hops) > 0:
		return q.Hops[len(q.Hops)-1].Plugin
	}
	return ""
}

// isCoreDNS tells whether the server is known to be CoreDNS: it has a record of the
// query, or its process is called so.
func isCoreDNS(t *trace.Trace) bool {
	return t.Query != nil || t.Server != nil && t.Server.Process == "coredns"
}

// ownWords quotes the reason that a server gives in its response (RFC 8914).
func ownWords(ex *trace.Exchange) []string {
	if ex == nil || ex.ExtendedError == nil {
		return nil
	}
	return []string{"the server's own words: " + extended(ex.ExtendedError)}
}

// inWords goes on with a server's own words of why it answered so, if it gave any.
func inWords(ex *trace.Exchange) string {
	if ex == nil || ex.ExtendedError == nil {
		return ""
	}
	const most = 90 // characters; all of it is evidence
	words := []rune(extended(ex.ExtendedError))
	if len(words) > most {
		words = append(words[:most], '…')
	}
	return " (" + string(words) + ")"
}

// whoAnswered names the server that answered the client.
func whoAnswered(t *trace.Trace) string {
	switch {
	case t.Query != nil:
		return "CoreDNS"
	case t.Exchange != nil:
		return "The server " + server(t.Exchange)
	}
	return "The server"
}

// extended quotes an extended error, of which name and text may be missing.
func extended(e *trace.ExtendedError) string {
	text := fmt.Sprintf("extended error %d", e.Code)
	if e.Name != "" {
		text += " " + e.Name
	}
	if e.Text != "" {
		text += fmt.Sprintf(", %q", e.Text)
	}
	return text
}

func orUnknown(s *trace.Seconds) string {
	if s == nil {
		return "an unknown time"
	}
	return since(*s)
}

// anyUpstream tells whether any upstream of a tree is as asked.
func anyUpstream(upstreams []trace.Upstream, is func(*trace.Upstream) bool) bool {
	for i := range upstreams {
		if is(&upstreams[i]) || anyUpstream(upstreams[i].Upstreams, is) {
			return true
		}
	}
	return false
}
