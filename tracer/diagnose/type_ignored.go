package diagnose

import (
	"fmt"
	"slices"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// ignoredTwice is how many queries without a response tell an upstream that ignores a
// type from a packet that was lost.
const ignoredTwice = 2

// typeIgnored finds upstreams that do not answer one type of a name. Proof: two queries of that
// type got no response, none got one within a minute, and one of another type of the same name
// did; one of the two may be to another upstream that answers other names. What else was silent for that question, and is not known to be silent for others, is reported
// with them: it serves the same zone.
func typeIgnored(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, ignored := range ignoredTypes(m, t) {
		first := ignored.proven[0][0]
		name, qtype := questionTo(t, first)
		other, _ := m.answeredType(t, first)
		f := trace.Finding{
			Code:   TypeIgnored,
			Advice: "It has to answer every type (RFC 8906). Until it does, answer in its place: `template IN " + qtype + "` in the Corefile.",
		}
		verbs := []string{"upstream", "answers", "ignores"}
		if len(ignored.proven) > 1 {
			verbs = []string{"upstreams", "answer", "ignore"}
		}
		f.Summary = fmt.Sprintf("The %s %s %s %s of %s and %s %s", verbs[0], addresses(ignored.proven), verbs[1], other.qtype, name, verbs[2], qtype)
		if len(ignored.beside) > 0 {
			f.Summary += fmt.Sprintf("; %s did not answer it either", addresses(ignored.beside))
		}
		f.Summary += costOf(t, slices.Concat(slices.Concat(ignored.proven, ignored.beside)...)) + "."
		for _, same := range ignored.proven {
			to := address(same[0])
			other, _ := m.answeredType(t, same[0])
			f.Evidence = append(f.Evidence,
				fmt.Sprintf("%s answered %s of this name, last at %s UTC", to, other.qtype, other.answered.UTC().Format("15:04:05.000")),
				fmt.Sprintf("%s to %s for %s of this name got no response meanwhile", english.Plural(m.upstream(to).name(name).qtype(qtype).silent, "query", ""), to, qtype))
		}
		for _, same := range slices.Concat(ignored.proven, ignored.beside) {
			for _, u := range same {
				f.Evidence = append(f.Evidence, timeoutEvidence(t, u)...)
			}
		}
		findings = append(findings, f)
	}
	return findings
}

// ignored is a question of a lookup that upstreams ignore: the queries to each, together.
type ignored struct {
	proven [][]*trace.Upstream
	beside [][]*trace.Upstream // silent for it, too
}

// has tells whether it is of the queries that are reported so.
func (i *ignored) has(u *trace.Upstream) bool {
	return slices.ContainsFunc(slices.Concat(i.proven, i.beside), func(same []*trace.Upstream) bool { return slices.Contains(same, u) })
}

// ignoredTypes returns the questions of a lookup of which upstreams are proven to ignore the type.
func ignoredTypes(m *memory, t *trace.Trace) []ignored {
	type question struct{ name, qtype string }
	of := func(u *trace.Upstream) (q question) {
		q.name, q.qtype = questionTo(t, u)
		return q
	}
	var found []ignored
	silent := silentUpstreams(t)
	for _, same := range silent {
		if !ignoresType(m, t, same[0]) {
			continue
		}
		i := slices.IndexFunc(found, func(other ignored) bool { return of(other.proven[0][0]) == of(same[0]) })
		if i < 0 {
			i = len(found)
			found = append(found, ignored{})
		}
		found[i].proven = append(found[i].proven, same)
	}
	for _, same := range silent {
		i := slices.IndexFunc(found, func(other ignored) bool { return of(other.proven[0][0]) == of(same[0]) })
		if i >= 0 && !ignoresType(m, t, same[0]) && m.silentForNothingElse(t, same[0]) {
			found[i].beside = append(found[i].beside, same)
		}
	}
	return found
}

// silentForNothingElse tells whether an upstream that did not answer is not known to be silent
// for other names, or other types.
func (m *memory) silentForNothingElse(t *trace.Trace, u *trace.Upstream) bool {
	seen := m.upstreams[address(u)]
	if seen == nil {
		return true
	}
	_, qtype := questionTo(t, u)
	for _, n := range seen.names {
		for _, ty := range n.types {
			if ty.qtype != qtype && ty.silent > 0 && within(ty.failed, t.Time) {
				return false
			}
		}
	}
	return true
}

// addresses names the upstreams that queries went to.
func addresses(groups [][]*trace.Upstream) string {
	var all []string
	for _, same := range groups {
		all = append(all, address(same[0]))
	}
	return english.WordSeries(all, "and")
}

// ignoresType tells whether an upstream that was silent is proven to ignore the type.
func ignoresType(m *memory, t *trace.Trace, u *trace.Upstream) bool {
	o, known := outcomeOf(t, u)
	seen, ok := m.upstreams[address(u)]
	if !known || !o.silent || !ok {
		return false
	}
	name, qtype := questionTo(t, u)
	n := seen.name(name)
	if n == nil {
		return false
	}
	ty := n.qtype(qtype)
	if ty.silent+m.silentBeside(t, u) < ignoredTwice || within(ty.answered, o.at) {
		return false
	}
	_, answers := m.answeredType(t, u)
	return answers
}

// silentBeside returns how many queries of a lookup for the same question got no response from
// other upstreams, which answer other names.
func (m *memory) silentBeside(t *trace.Trace, u *trace.Upstream) (n int) {
	name, qtype := questionTo(t, u)
	for _, same := range silentUpstreams(t) {
		v := same[0]
		otherName, otherType := questionTo(t, v)
		seen := m.upstreams[address(v)]
		if address(v) == address(u) || otherName != name || otherType != qtype || seen == nil {
			continue
		}
		if answered, _ := m.count(seen, t.Time); answered > 0 && m.silentForNothingElse(t, v) {
			n += len(same)
		}
	}
	return n
}

// answeredType returns another type of the name for which a lookup asked an upstream that was
// answered around that time: as far as is remembered of the upstream, else of what the lookup's
// client asked besides, which are more names of a busy server.
func (m *memory) answeredType(t *trace.Trace, u *trace.Upstream) (typeSeen, bool) {
	name, but := questionTo(t, u)
	if n := m.upstream(address(u)).name(name); n != nil {
		for _, ty := range n.types {
			if ty.qtype != but && within(ty.answered, t.Time) {
				return ty, true
			}
		}
	}
	if t.Exchange == nil {
		return typeSeen{}, false
	}
	for _, s := range m.of(lookupKey{clientOf(t.Exchange), name}) {
		if s.qtype != but && s.answeredBy == address(u) {
			return typeSeen{qtype: s.qtype, answered: s.end}, true
		}
	}
	return typeSeen{}, false
}
