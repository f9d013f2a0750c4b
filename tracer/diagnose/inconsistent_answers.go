package diagnose

import (
	"fmt"
	"slices"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// inconsistentAnswers finds a call whose answers for A and AAAA of one name contradict each
// other, with the later of the two. Proof: of two lookups of one call and one name, one was
// answered NXDOMAIN, which says that the name has no records of any type (RFC 8020), and the
// other NOERROR. An error is no answer: it has a finding of its own, with the lookup that got it.
func inconsistentAnswers(m *memory, t *trace.Trace) []trace.Finding {
	ex := t.Exchange
	if ex == nil || ex.QType != "A" && ex.QType != "AAAA" {
		return nil
	}
	c := m.calls[callID(t)]
	if c == nil || !c.contradicts.IsZero() && c.contradicts != ex.TraceID {
		return nil
	}
	self := newSeen(t, ex)
	for _, other := range c.lookups {
		good, bad := self, other
		if good.rcode != "NOERROR" {
			good, bad = bad, good
		}
		if other.key != self.key || other.qtype == self.qtype || other.qtype != "A" && other.qtype != "AAAA" ||
			!contradict(good, bad) || c.answeredWell(bad) {
			continue
		}
		c.contradicts = ex.TraceID
		return []trace.Finding{contradiction(t, good, bad)}
	}
	return nil
}

// contradict tells whether what a server says of a name contradicts the good answer that it
// gave.
func contradict(good, bad *seen) bool {
	if !good.answered || !bad.answered || good.server != bad.server || good.rcode != "NOERROR" || good.truncated || good.records < 0 {
		return false
	}
	return bad.rcode == "NXDOMAIN"
}

// answeredWell tells whether the question of a lookup was asked again, and answered well.
func (c *call) answeredWell(bad *seen) bool {
	return slices.ContainsFunc(c.lookups, func(s *seen) bool {
		return s.key == bad.key && s.qtype == bad.qtype && s.rcode == "NOERROR"
	})
}

func contradiction(t *trace.Trace, good, bad *seen) trace.Finding {
	f := trace.Finding{
		Code:     InconsistentAnswers,
		Summary:  fmt.Sprintf("%s is answered %s for %s, and for %s with %s: %s.", good.key.name, bad.rcode, bad.qtype, good.qtype, recordsOf(good), whoFails(good)),
		Evidence: []string{said(good), said(bad)},
		Advice:   fmt.Sprintf("See who answers %s so: `dnstrace explain %s`. It has to say NOERROR (RFC 4074, section 4).", bad.qtype, bad.id),
	}
	if t.ResolutionJoin == trace.JoinInferred {
		f.Evidence = append(f.Evidence, "that they are one call is judged by process, socket, names and times: resolution "+t.Resolution)
	}
	return f
}

// whoFails says what resolvers make of it. musl goes by either answer alone
// (src/network/lookup_name.c); glibc
// (resolv/nss_dns/dns-host.c) and Go (net/dnsclient_unix.go) take the addresses that
// there are.
func whoFails(good *seen) string {
	if good.records == 0 {
		return "it exists, or not"
	}
	return "musl finds no such name, glibc and Go take the address"
}

func recordsOf(s *seen) string {
	if s.records == 0 {
		return "NOERROR"
	}
	return english.Plural(s.records, "record", "")
}

// said quotes the answer of a lookup.
func said(s *seen) string {
	return fmt.Sprintf("%s %s was answered %s with %s by %s (DNS ID %#04x, trace %s)", s.key.name, s.qtype, s.rcode, english.Plural(max(s.records, 0), "record", ""), s.server, s.dnsID, s.id)
}
