package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// fewNames is how many names may fail before the right one without a word: one
// suffix is what a search list is for.
const fewNames = 2

// searchPath finds a getaddrinfo call that asked for a name with one suffix of
// the search list after the other. Proof: lookups of one resolution, for names
// that begin alike, of which all but the last do not exist. It comes with the
// lookup that ends the call: one that has an answer, or the name as it was
// given. That the lookups are one call is mostly inferred, and the evidence says
// from what.
func searchPath(m *memory, t *trace.Trace) []trace.Finding {
	if t.Exchange == nil || t.Resolution == "" {
		return nil
	}
	c := m.calls[callID(t)]
	if c == nil || !c.costs.IsZero() && c.costs != t.Exchange.TraceID {
		return nil
	}
	last := newSeen(t, t.Exchange)
	// What replaces a record is remembered as it was.
	all := slices.DeleteFunc(slices.Clone(c.lookups), func(s *seen) bool { return s.id == last.id && s.start.Equal(last.start) })
	slices.SortStableFunc(all, func(a, b *seen) int { return a.start.Compare(b.start) })
	var failed []string // names, in order
	types := map[string]bool{}
	queries := 1
	for _, s := range all {
		queries++
		if s.key.name == last.key.name {
			types[s.qtype] = true
			continue
		}
		if s.rcode != "NXDOMAIN" {
			return nil
		}
		types["of "+s.qtype] = true
		if !slices.Contains(failed, s.key.name) {
			failed = append(failed, s.key.name)
		}
	}
	if len(failed) < fewNames || !endsSearch(last, failed) {
		return nil
	}
	// The other address type of the last name is still to come.
	types[last.qtype] = true
	for _, q := range []string{"A", "AAAA"} {
		if types["of "+q] && !types[q] {
			return nil
		}
	}
	c.costs = last.id
	took := last.end.Sub(all[0].start)
	f := trace.Finding{
		Code:    SearchPathAmplification,
		Summary: fmt.Sprintf("One name took %d queries: %s of the search list failed before %s.", queries, english.Plural(len(failed), "name", ""), lastResult(last)),
		Advice:  "Ask for the full name with a final dot, set `options ndots:1` for the pod (dnsConfig), or let CoreDNS's `autopath` answer at once.",
	}
	for _, name := range failed {
		f.Evidence = append(f.Evidence, "answered NXDOMAIN: "+name)
	}
	f.Evidence = append(f.Evidence,
		fmt.Sprintf("answered %s: %s, %s after the first query", last.rcode, last.key.name, since(trace.Seconds(took))),
		"that they are one call is judged by process, socket, names and times: resolution "+t.Resolution)
	if name, suffix := withoutSuffix(last, all); suffix != "" && last.rcode == "NOERROR" {
		f.Evidence = append(f.Evidence, fmt.Sprintf("the search suffix %s answered, so that %s itself was never asked", suffix, name))
	}
	return []trace.Finding{f}
}

// endsSearch tells whether a resolver stops at this lookup: it has an answer, or
// it is for the name without any suffix, which is asked for last.
func endsSearch(last *seen, failed []string) bool {
	if last.rcode == "NOERROR" {
		return true
	}
	return last.rcode == "NXDOMAIN" && strings.HasPrefix(failed[0], last.key.name)
}

func lastResult(last *seen) string {
	if last.rcode == "NOERROR" {
		return last.key.name + " was found"
	}
	return last.key.name + " failed too"
}
