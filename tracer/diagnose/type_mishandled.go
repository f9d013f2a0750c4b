package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// An upstream, or a server, that answers one type of a name with an error and another as it should
// mishandles that type, whatever the error: that is one cause, which the finding about the error
// names. Proof: the error, and the answer within a minute.

// mishandledBy says that of an upstream's answers to one question; empty if it is not known to
// answer another type of the name.
func mishandledBy(m *memory, t *trace.Trace, how failing, same []*trace.Upstream) (summary, advice string, evidence []string) {
	if !how.answered {
		return "", "", nil
	}
	name, qtype := questionTo(t, same[0])
	for _, u := range same[1:] {
		if n, q := questionTo(t, u); n != name || q != qtype {
			return "", "", nil
		}
	}
	other, answers := m.answeredType(t, same[0])
	ex := same[0].Exchange
	if !answers || !isType(qtype) || ex.Operation() != "" {
		return "", "", nil
	}
	words := inWords(ex)
	if len(same) > 1 {
		words += fmt.Sprintf(", %d times", len(same))
	}
	summary = fmt.Sprintf("The upstream %s %s%s.", how.address, mishandles(name, qtype, other.qtype, ex.RCode), words)
	evidence = append(evidence, fmt.Sprintf("%s answered %s of this name, last at %s UTC", how.address, other.qtype, other.answered.UTC().Format("15:04:05.000")))
	return summary, mishandledAdvice(qtype, other.qtype, ex.RCode), append(evidence, mishandledEvidence(m, t)...)
}

// answersOther returns a lookup of another type of the same name to which the client of a lookup
// got an answer that is no error: by that upstream, or if none is given by the same server. Nil if
// there is none.
func (m *memory) answersOther(t *trace.Trace, upstream string) *seen {
	ex := t.Exchange
	if ex == nil || ex.Connects() || !isType(ex.QType) || ex.Operation() != "" {
		return nil
	}
	for _, s := range m.of(lookupKey{clientOf(ex), ex.QName}) {
		if s.qtype == ex.QType || !s.answered || errorCode(s.rcode) || !isType(s.qtype) {
			continue
		}
		if upstream == "" && s.server == ex.ServerIP || upstream != "" && s.answeredBy == upstream {
			return s
		}
	}
	return nil
}

// mishandledByServer says in a finding about a server's error that it mishandles the type, if it is
// known to answer another.
func mishandledByServer(m *memory, t *trace.Trace, f trace.Finding) trace.Finding {
	other := m.answersOther(t, "")
	if other == nil {
		return f
	}
	f.Summary = fmt.Sprintf("%s %s%s.", whoAnswered(t), mishandles(t.QName, t.QType, other.qtype, t.RCode), inWords(t.Exchange))
	f.Advice = mishandledAdvice(t.QType, other.qtype, t.RCode)
	f.Evidence = append(append(f.Evidence, said(other)), mishandledEvidence(m, t)...)
	return f
}

// isType tells whether something is the type of a lookup: not that of a transfer of a zone, or any.
func isType(qtype string) bool {
	switch qtype {
	case "", "ANY", "AXFR", "IXFR":
		return false
	}
	return true
}

// mishandles says how a type is answered beside another.
func mishandles(name, qtype, other, rcode string) string {
	return fmt.Sprintf("answers %s of %s and gives %s for %s", other, name, rcode, qtype)
}

// mishandledAdvice says what to do about a server that mishandles a type.
func mishandledAdvice(qtype, other, rcode string) string {
	instead := "answer in its place: `template IN " + qtype + "` in the Corefile."
	switch rcode {
	case "SERVFAIL":
		return "It, or the zone's own server, fails this type alone. Until it is mended, " + instead
	case "REFUSED":
		return "It forbids this type, or mishandles it. Until that is mended, " + instead
	case "FORMERR":
		return "It mishandles the type (or EDNS: try `dig +noedns`). Until that is mended, " + instead
	}
	return fmt.Sprintf("It has to answer %s as it does %s (RFC 8906). Until it does, %s", qtype, other, instead)
}

// typeAsked is the type that a query to an upstream asked for; empty if it was no lookup.
func typeAsked(t *trace.Trace, u *trace.Upstream) string {
	if u.Exchange != nil && u.Exchange.Operation() != "" || u.Exchange == nil && t.Query != nil && t.Query.Operation() != "" {
		return ""
	}
	_, qtype := questionTo(t, u)
	return qtype
}

// otherTypeAdvice says what to do about an error where it is not known how another type of the name
// is answered; empty for the type that all servers know.
func otherTypeAdvice(rcode, qtype string) string {
	if qtype == "A" || !isType(qtype) {
		return ""
	}
	switch rcode {
	case "SERVFAIL":
		return "Ask it for A too (`dig @ADDRESS NAME A`): if it answers that, it mishandles " + qtype + "; else the fault is there or further up."
	case "REFUSED":
		return "Ask it for A too (`dig @ADDRESS NAME A`): if it answers that, it mishandles " + qtype + "; else its log says whom it refuses."
	case "NOTIMP":
		return "It does not know " + qtype + ", and has to answer all types (RFC 8906). Until it does: `template IN " + qtype + "` in the Corefile."
	case "FORMERR":
		return "Try `dig @ADDRESS NAME A` (if that works, it mishandles " + qtype + ") and `dig +noedns` (if that does, it is EDNS)."
	}
	return ""
}

// mishandledEvidence says what clients make of it that ask for addresses of both families. musl
// goes by either answer alone, after asking again where it is SERVFAIL (src/network/lookup_name.c,
// res_msend.c).
func mishandledEvidence(m *memory, t *trace.Trace) []string {
	if t.Exchange == nil || t.Exchange.QType != "A" && t.Exchange.QType != "AAAA" {
		return nil
	}
	for _, s := range m.of(lookupKey{clientOf(t.Exchange), t.Exchange.QName}) {
		if s.qtype != t.QType && (s.qtype == "A" || s.qtype == "AAAA") && s.records > 0 && !errorCode(s.rcode) {
			return []string{fmt.Sprintf("its client got %s for %s: musl fails unless asking again helps, glibc and Go take the address", recordsOf(s), s.qtype)}
		}
	}
	return nil
}
