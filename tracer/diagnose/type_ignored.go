package diagnose

import (
	"fmt"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// ignoredTwice is how many queries without a response tell an upstream that ignores a
// type from a packet that was lost.
const ignoredTwice = 2

// typeIgnored finds an upstream that does not answer one type of a name. Proof: two
// queries of that type got no response, none got one within a minute, and one of another
// type of the same name did.
func typeIgnored(m *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, same := range silentUpstreams(t) {
		if !ignoresType(m, t, same[0]) {
			continue
		}
		name, qtype := questionTo(t, same[0])
		silent := m.upstream(address(same[0])).name(name).qtype(qtype).silent
		other, _ := m.answeredType(t, same[0])
		f := trace.Finding{
			Code: TypeIgnored,
			Summary: fmt.Sprintf("The upstream %s answers %s of %s and ignores %s%s.",
				address(same[0]), other.qtype, name, qtype, costOf(t, same)),
			Evidence: []string{
				fmt.Sprintf("it answered %s of this name, last at %s UTC", other.qtype, other.answered.UTC().Format("15:04:05.000")),
				fmt.Sprintf("%s of this name for %s got no response meanwhile", english.Plural(silent, "query", ""), qtype),
			},
			Advice: "It has to answer every type (RFC 8906). Until it does, answer in its place: `template IN " + qtype + "` in the Corefile.",
		}
		for _, u := range same {
			f.Evidence = append(f.Evidence, timeoutEvidence(t, u)...)
		}
		findings = append(findings, f)
	}
	return findings
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
	if ty.silent < ignoredTwice || within(ty.answered, o.at) {
		return false
	}
	_, answers := m.answeredType(t, u)
	return answers
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
