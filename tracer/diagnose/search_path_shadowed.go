package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/dnstrace/dnstrace/trace"
)

const (
	// maxSuffixes bounds the suffixes of clients' search lists that are remembered.
	maxSuffixes = 1024
	// suffixFor is how long one is: as long as a pod that asks now and then asks again.
	suffixFor = 10 * time.Minute
)

// suffixKey is a suffix of a client's search list.
type suffixKey struct {
	client clientKey
	suffix string
}

// suffixSeen is what is remembered of one.
type suffixSeen struct {
	at      time.Time
	answers [2]suffixAnswer // the last for A, and for AAAA
}

// suffixAnswer is what a name without the suffix was answered with it.
type suffixAnswer struct {
	at              time.Time
	name, addresses string
}

// searchShadowed finds a search list that ended before the name itself was asked, where that
// name was meant. That a suffix answers is what search lists are for, so that alone is none.
// Proof: lookups of one call, or a suffix that the client went through in another, and
//
//   - the suffix answered SERVFAIL, and for a second its client did not go on; or
//   - the suffix answered for a name that ends in another suffix of the list already, or
//     that this client got another answer to without suffix; or
//   - the suffix gave two names that are absolute by their looks, of three labels under a
//     public top-level domain, the same addresses: a wildcard.
//
// A Service's name has a namespace at its end, which may look like a top-level domain: the
// suffixes of a cluster are spared in the last case.
func searchShadowed(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.Outcome != trace.OutcomeAnswered || ex.QType != "A" && ex.QType != "AAAA" {
		return nil
	}
	c := m.calls[callID(t)]
	if c == nil && len(m.suffixes) == 0 {
		return nil
	}
	last := newSeen(t, ex)
	s := m.searchOf(c, last)
	if s.suffix == "" {
		return nil
	}
	failed := ex.RCode == "SERVFAIL" && t.Stopped && len(s.before) > 0
	why, because := "", ""
	if ex.RCode == "NOERROR" && last.records > 0 {
		why, because = m.shadows(s, ex)
	}
	if !failed && why == "" {
		return nil
	}
	if c == nil && !t.Replaces {
		c = m.callOf(callID(t))
	}
	if c == nil || !c.shadowed.IsZero() && c.shadowed != ex.TraceID {
		return nil
	}
	c.shadowed = ex.TraceID
	f := trace.Finding{
		Code:    SearchPathShadowed,
		Summary: fmt.Sprintf("The search suffix %s answered for %s, which was never asked: %s.", s.suffix, s.name, why),
		Advice:  "Ask with a final dot, set `options ndots:1`, or take the suffix, or its wildcard, out.",
	}
	if failed {
		f.Summary = fmt.Sprintf("The search suffix %s failed, and the client stopped there: %s was never asked.", s.suffix, s.name)
		f.Advice = "musl ends a search list at SERVFAIL. Mend the suffix's zone, take it out of the list, or ask with a final dot."
	}
	for _, b := range s.before {
		f.Evidence = append(f.Evidence, fmt.Sprintf("answered %s: %s", b.rcode, b.key.name))
	}
	f.Evidence = append(f.Evidence, strings.TrimSpace(fmt.Sprintf("answered %s: %s %s", ex.RCode, ex.QName, joined(ex))),
		fmt.Sprintf("no lookup of %s itself is of this call", s.name))
	if because != "" {
		f.Evidence = append(f.Evidence, because)
	}
	if len(s.before) == 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s is of this client's search list: another call went through it", s.suffix))
	}
	return []trace.Finding{f}
}

// searched is a name that was asked for with a suffix of a search list.
type searched struct {
	client       clientKey
	name, suffix string  // empty: it has none that is known
	before       []*seen // the suffixes that failed before, one lookup of each name
}

// searchOf returns what a lookup of a call asked for, and remembers its suffix.
func (m *memory) searchOf(c *call, last *seen) searched {
	s := searched{client: last.key.client}
	if c != nil {
		for _, o := range c.lookups {
			if o.key.name != last.key.name && !o.start.After(last.start) && !slices.ContainsFunc(s.before, func(b *seen) bool { return b.key == o.key }) {
				s.before = append(s.before, o)
			}
		}
	}
	if len(s.before) == 0 {
		s.name, s.suffix = m.knownSuffix(last)
		return s
	}
	name, suffix := withoutSuffix(last, s.before)
	if suffix == "" {
		return searched{client: s.client}
	}
	s.name, s.suffix = name, suffix
	m.suffixOf(s, last.end)
	return s
}

// withoutSuffix returns what a lookup of a call asked for and with which suffix: what its
// name and those before it begin with. It is empty if the name itself was asked for.
func withoutSuffix(last *seen, before []*seen) (name, suffix string) {
	labels := strings.Split(last.key.name, ".")
	n := len(labels)
	for _, o := range before {
		other := strings.Split(o.key.name, ".")
		same := 0
		for same < min(n, len(other)) && labels[same] == other[same] {
			same++
		}
		n = same
	}
	name, suffix = strings.Join(labels[:n], ".")+".", strings.Join(labels[n:], ".")
	if n == 0 || slices.ContainsFunc(before, func(o *seen) bool { return o.key.name == name }) {
		return "", ""
	}
	return name, suffix
}

// knownSuffix returns the suffix of a name that its client was seen to go through in another
// call, the longest.
func (m *memory) knownSuffix(of *seen) (name, suffix string) {
	for i := range of.key.name {
		if of.key.name[i] != '.' || i+1 == len(of.key.name) {
			continue
		}
		rest := of.key.name[i+1:]
		if s := m.suffixes[suffixKey{of.key.client, rest}]; s != nil && of.end.Sub(s.at) <= suffixFor {
			return of.key.name[:i+1], rest
		}
	}
	return "", ""
}

// suffixOf returns what is remembered of a suffix.
func (m *memory) suffixOf(s searched, at time.Time) *suffixSeen {
	k := suffixKey{s.client, s.suffix}
	seen := m.suffixes[k]
	if seen == nil {
		if len(m.suffixes) >= maxSuffixes {
			forgetStalest(m.suffixes, func(s *suffixSeen) int64 { return s.at.UnixNano() })
		}
		seen = &suffixSeen{}
		m.suffixes[k] = seen
	}
	seen.at = at
	return seen
}

// shadows says why a name was meant that was answered with a suffix, and what shows it; empty:
// nothing does.
func (m *memory) shadows(s searched, ex *trace.Exchange) (why, because string) {
	for _, b := range s.before {
		if other := strings.TrimPrefix(b.key.name, s.name); strings.HasSuffix(s.name, "."+other) {
			return "a wildcard", fmt.Sprintf("the name ends in another suffix of the list already: %s", other)
		}
	}
	addresses := joined(ex)
	for _, o := range m.of(lookupKey{s.client, s.name}) {
		if o.qtype == ex.QType && o.rcode == "NOERROR" && o.address != "" && !strings.Contains(" "+addresses+" ", " "+o.address+" ") {
			return "it is answered otherwise", fmt.Sprintf("without suffix it was answered %s (trace %s)", o.address, o.id)
		}
	}
	if ofCluster(s.suffix) || !absolute(s.name) || addresses == "" {
		return "", ""
	}
	last := &m.suffixOf(s, ex.Time).answers[len(ex.QType)/len("AAAA")]
	before := *last
	*last = suffixAnswer{ex.Time, s.name, addresses}
	if before.addresses == addresses && before.name != s.name && ex.Time.Sub(before.at) <= suffixFor {
		return "a wildcard", fmt.Sprintf("the suffix answered the same for %s, %s before", before.name, took(ex.Time.Sub(before.at)))
	}
	return "", ""
}

// ofCluster tells whether a suffix is one that Kubernetes gives: Services' names end there in
// their namespace.
func ofCluster(suffix string) bool {
	return slices.Contains(strings.SplitN(suffix, ".", 3), "svc")
}

// absolute tells whether a name has the looks of one that needs no suffix: three labels or
// more, under a public top-level domain or one for tests and examples (RFC 6761).
func absolute(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if strings.Count(name, ".") < 2 {
		return false
	}
	top := name[strings.LastIndexByte(name, '.')+1:]
	_, public := publicsuffix.PublicSuffix(top)
	return public || top == "test" || top == "example"
}

// joined returns the addresses of an answer, in order.
func joined(ex *trace.Exchange) string {
	var all []string
	for i := range ex.Answers {
		if a := &ex.Answers[i]; a.Type == ex.QType {
			all = append(all, a.Value)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
