package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// upstreamError finds an upstream that answered with an error, or that could not
// be asked. Proof: the response code on the wire, or how CoreDNS's attempt ended.
// Where the upstream is an observed server whose own upstream failed, that is
// the finding.
func upstreamError(m *memory, t *trace.Trace) []trace.Finding {
	findings := upstreamErrors(m, t, t.Upstreams)
	if u, ok := forwarded(t); ok && len(findings) == 0 && errorCode(t.Query.RCode) && !failedFromCache(t.Query) {
		how, advice, evidence := "answered "+t.Query.RCode, adviceFor(t.Query.RCode, typeAsked(t, u)), []string(nil)
		if t.Exchange != nil && t.Query.RCode == t.RCode {
			if good := m.answersOther(t, address(u)); good != nil {
				how, advice, evidence = mishandles(t.QName, t.QType, good.qtype, t.RCode), mishandledAdvice(t.QType, good.qtype, t.RCode), mishandledEvidence(m, t)
			}
		}
		findings = append(findings, trace.Finding{
			Code:    UpstreamError,
			Summary: fmt.Sprintf("The upstream %s %s.", address(u), how),
			Evidence: append([]string{
				fmt.Sprintf("CoreDNS's %s ended as %s, and %s passed the answer on: rcode %s", attemptName(u.Attempt), u.Attempt.Outcome, t.Query.AnsweredBy, t.Query.RCode),
				"its packets were not observed",
			}, evidence...),
			Advice: advice,
		})
	}
	return findings
}

// forwarded returns the upstream whose answer CoreDNS passed on, if only its record
// tells of it.
func forwarded(t *trace.Trace) (*trace.Upstream, bool) {
	if t.Query == nil || !slices.Contains(forwarders, t.Query.AnsweredBy) || len(t.Upstreams) == 0 {
		return nil, false
	}
	u := &t.Upstreams[len(t.Upstreams)-1]
	return u, u.Exchange == nil && u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeOK
}

// failing is how an upstream failed the server that asked it.
type failing struct {
	address, did string
	answered     bool // with an error
	timeouts     int  // of the queries to it, those that ended so
}

// Of what is no answer CoreDNS gives no more detail.
const (
	couldNotBeAsked = "could not be asked"
	gaveNoAnswer    = "was reached, and CoreDNS got no answer from it"
	noUsableAnswer  = "gave no answer that CoreDNS could use"
)

// upstreamErrors finds those of a tree; of several that are alike, one says how often.
func upstreamErrors(m *memory, t *trace.Trace, upstreams []trace.Upstream) []trace.Finding {
	var findings []trace.Finding
	first, all := map[failing]int{}, map[failing][]*trace.Upstream{}
	for i := range upstreams {
		u := &upstreams[i]
		deeper := upstreamErrors(m, t, u.Upstreams)
		findings = append(findings, deeper...)
		if len(deeper) > 0 || anyUpstream(u.Upstreams, silent) || failedFromCache(u.Query) {
			continue
		}
		how, failed := failureOf(m, t, u)
		if !failed || reopened(u, upstreams[i+1:]) {
			continue
		}
		if all[how] = append(all[how], u); len(all[how]) == 1 {
			first[how] = len(findings)
			findings = append(findings, trace.Finding{Code: UpstreamError})
		}
		f := &findings[first[how]]
		f.Evidence = append(f.Evidence, failureEvidence(m, t, u)...)
	}
	for how, same := range all {
		f := &findings[first[how]]
		if silent := silentBefore(m, t, how, same[0]); len(silent) > 0 {
			for _, u := range slices.Backward(silent) {
				f.Evidence = append(timeoutEvidence(t, u), f.Evidence...)
			}
			how.timeouts, same = len(silent), slices.Concat(silent, same)
		}
		f.Summary, f.Advice = how.reported(t, same)
		if summary, advice, evidence := mishandledBy(m, t, how, same); summary != "" {
			f.Summary, f.Advice, f.Evidence = summary, advice, append(evidence, f.Evidence...)
		}
		f.Evidence = shortened(f.Evidence)
	}
	return findings
}

// manyQuotes is how much evidence a reader takes in.
const manyQuotes = 8

// shortened leaves out the middle of long evidence, and says so.
func shortened(evidence []string) []string {
	more := len(evidence) - manyQuotes
	if more <= 1 {
		return evidence
	}
	return append(evidence[:manyQuotes:manyQuotes], fmt.Sprintf("and %d more like these", more))
}

// failureOf tells how an upstream failed; false if it did not, or has a finding of its own
// for that.
func failureOf(m *memory, t *trace.Trace, u *trace.Upstream) (failing, bool) {
	at, ex := u.Attempt, u.Exchange
	_, late := lateBy(u)
	limit, _ := limited(m, t, u)
	if late || limit > 0 || ex != nil && (ex.Outcome == trace.OutcomeDropped || tooLarge(ex)) || rejectedOf(u) != nil {
		return failing{}, false
	}
	switch {
	case ex != nil && errorCode(ex.RCode):
		return failing{address: address(u), did: "answered " + ex.RCode, answered: true}, true
	case at != nil && at.Outcome == trace.OutcomeError && ex != nil && reached(ex):
		return failing{address: address(u), did: gaveNoAnswer}, true
	case at != nil && at.Outcome == trace.OutcomeError:
		return failing{address: address(u), did: couldNotBeAsked}, true
	case at != nil && at.Outcome == trace.OutcomeFailed && (ex == nil || !silentExchange(ex) || incomplete(ex)):
		return failing{address: address(u), did: noUsableAnswer}, true
	}
	return failing{}, false
}

// reopened tells whether an upstream reset the TCP connection of a query and answered the next
// attempt: it closes connections that are idle, one just as the query came, which whoever asks has
// to expect (RFC 7766, section 6.2.4).
func reopened(u *trace.Upstream, later []trace.Upstream) bool {
	ex := u.Exchange
	if ex == nil || ex.Protocol != "tcp" || ex.Connects() || ex.Reset == nil || ex.Reset.Src.Addr() != ex.ServerIP || len(later) == 0 {
		return false
	}
	next := &later[0]
	return address(next) == address(u) && next.Exchange != nil && next.Exchange.Outcome == trace.OutcomeAnswered
}

// reported says how an upstream failed, of all queries that it failed in that way, and what to do.
func (how failing) reported(t *trace.Trace, same []*trace.Upstream) (summary, advice string) {
	words, price := lastWords(same), costOf(t, same)
	switch {
	case how.answered:
		words, price = inWords(same[0].Exchange), ""
		advice = adviceFor(same[0].Exchange.RCode, typeAsked(t, same[0]))
	case how.did == gaveNoAnswer:
		advice = "See its log: it took the query, or the connection, and ended it. Does " + digAt(same[0]) + " work there, or only with `+tls`?"
	case how.did == couldNotBeAsked && failsTLS(same):
		advice = "Compare its certificate with `tls_servername` and the CA of `tls` in `forward`: `openssl s_client -connect ADDRESS -servername NAME`."
	case how.did == couldNotBeAsked && strings.HasSuffix(words, "(EOF)"):
		advice = "It took the connection and ended it. With `tls://` in `forward`: does it speak TLS at that port (`dig +tls -p PORT`)? Else see its log."
	case how.did == couldNotBeAsked:
		advice = "See that something listens on that address and that the way there is open: " + digAt(same[0]) + " from the server's namespace."
	default:
		advice = "Ask it from the server's namespace (" + digAt(same[0]) + "). CoreDNS does not tell whether it was silent or refused."
	}
	if n := len(same) - how.timeouts; n > 1 {
		words += fmt.Sprintf(", %d times", n)
	}
	if how.timeouts > 0 {
		words += fmt.Sprintf(", after %s", english.Plural(how.timeouts, "timeout", ""))
	}
	did := how.did
	if !how.answered {
		switch {
		case noTLS(same):
			did, advice = "was asked over TLS, and does not speak it there", noTLSAdvice
		case slices.ContainsFunc(same, plainAtTLSPort):
			did, advice = "was asked without TLS at port 853, which is for TLS", plainAtTLSAdvice
		}
	}
	return fmt.Sprintf("The upstream %s %s%s%s.", how.address, did, words, price), advice
}

// silentBefore returns the queries of a lookup to an upstream that got no answer, if others to it
// failed otherwise: what did not take a connection, or ended it, is one cause, and how it failed at
// last tells more than that it was silent before.
func silentBefore(m *memory, t *trace.Trace, how failing, u *trace.Upstream) []*trace.Upstream {
	if how.answered {
		return nil
	}
	of := ignoredTypes(m, t)
	for _, same := range silentUpstreams(t) {
		if toSameUpstream(same[0], u) && !slices.ContainsFunc(of, func(i ignored) bool { return i.has(same[0]) }) {
			return same
		}
	}
	return nil
}

// reportedAsError tells whether the queries to a silent upstream are reported with others to it that failed
// otherwise.
func reportedAsError(m *memory, t *trace.Trace, silent *trace.Upstream) (is bool) {
	eachUpstream(t.Upstreams, func(u *trace.Upstream) {
		if is || !toSameUpstream(silent, u) {
			return
		}
		how, failed := failureOf(m, t, u)
		is = failed && !how.answered
	})
	return is
}

// Port 853 is that of DNS over TLS (RFC 7858).
const portTLS = 853

const (
	noTLSAdvice      = "Name its port for TLS (`dig +tls -p PORT @ADDRESS NAME`, from the server's namespace), or take `tls://` out of `forward`."
	plainAtTLSAdvice = "Port 853 is for DNS over TLS, and this came without: ask it over TLS (`tls://` in `forward`), or at its port for plain DNS (53)."
)

// noTLS tells whether what an upstream sent first on a connection was no TLS (Go's crypto/tls).
func noTLS(same []*trace.Upstream) bool {
	return slices.ContainsFunc(same, func(u *trace.Upstream) bool {
		return u.Attempt != nil && (strings.Contains(u.Attempt.Error, "first record does not look like a TLS handshake") ||
			strings.Contains(u.Attempt.Error, "oversized record received"))
	})
}

// plainAtTLSPort tells whether an upstream was asked in plain DNS where TLS is spoken: the query was
// read on the wire, or a datagram was sent.
func plainAtTLSPort(u *trace.Upstream) bool {
	if upstreamOf(u).Port() != portTLS {
		return false
	}
	if ex := u.Exchange; ex != nil {
		return plainToTLSPort(ex)
	}
	return u.Attempt != nil && (strings.HasPrefix(u.Attempt.Error, "read udp ") || strings.HasPrefix(u.Attempt.Error, "write udp "))
}

// plainToTLSPort tells whether a plain query went to the port of DNS over TLS.
func plainToTLSPort(ex *trace.Exchange) bool {
	return ex.ServerPort == portTLS && !ex.Connects() && ex.QName != ""
}

func failureEvidence(m *memory, t *trace.Trace, u *trace.Upstream) (evidence []string) {
	at, ex := u.Attempt, u.Exchange
	if ex != nil && errorCode(ex.RCode) {
		evidence = append(evidence, fmt.Sprintf("its query with ID %#04x left from %s port %d, and the response had the code %s", ex.ID, ex.ClientIP, ex.ClientPort, ex.RCode))
		if e := ex.ExtendedError; e != nil {
			evidence = append(evidence, "the upstream's own words: "+extended(e))
		}
		evidence = append(evidence, othersAnswered(m, u)...)
	}
	if at != nil && at.Failed() {
		evidence = append(evidence, "CoreDNS's "+endedAs(at))
	}
	if ex != nil {
		evidence = append(append(append(evidence, icmpEvidence(t, ex)...), resetEvidence(ex)...), rejections(ex)...)
	}
	return appendInferred(evidence, u)
}

// lastWords goes on with what CoreDNS says of an attempt, without what it was about: Go's
// errors have that in front. Of several attempts in a row it tells of the last.
func lastWords(same []*trace.Upstream) string {
	for i := len(same) - 1; i >= 0; i-- {
		at := same[i].Attempt
		if at == nil || at.Error == "" {
			continue
		}
		words := at.Error
		if i := strings.LastIndex(words, ": "); i >= 0 {
			words = words[i+2:]
		}
		return " (" + words + ")"
	}
	return ""
}

// failsTLS tells whether there was a connection, and no TLS on it.
func failsTLS(same []*trace.Upstream) bool {
	return slices.ContainsFunc(same, func(u *trace.Upstream) bool {
		return u.Attempt != nil && (strings.Contains(u.Attempt.Error, "tls: ") || strings.Contains(u.Attempt.Error, "x509: "))
	})
}

// digAt is a command that asks an upstream, as the server does.
func digAt(u *trace.Upstream) string {
	switch port := upstreamOf(u).Port(); port {
	case 0, 53:
		return "`dig @ADDRESS NAME`"
	case 853:
		return "`dig +tls @ADDRESS NAME`"
	default:
		return fmt.Sprintf("`dig -p %d @ADDRESS NAME`", port)
	}
}

// reached tells whether a query was seen to come to its server.
func reached(ex *trace.Exchange) bool {
	return ex.Milestones.Query.Arrived.Seen() || ex.Milestones.Query.Read.Seen()
}

// othersAnswered says how the upstream treats other names meanwhile: of one that answers
// them, the name is broken.
func othersAnswered(m *memory, u *trace.Upstream) []string {
	seen := m.upstreams[address(u)]
	if seen == nil || u.Exchange == nil {
		return nil
	}
	answered, failed := m.count(seen, u.Exchange.Time)
	if answered == 0 {
		return nil
	}
	return []string{fmt.Sprintf("within a minute it answered %d of the latest %s that it was asked for, with one type or another", answered, english.Plural(answered+failed, "name", ""))}
}

// errorCode tells codes that say the server failed; that a name does not exist
// is an answer.
func errorCode(rcode string) bool {
	switch rcode {
	case "", "NOERROR", "NXDOMAIN":
		return false
	}
	return true
}

func adviceFor(rcode, qtype string) string {
	if advice := otherTypeAdvice(rcode, qtype); advice != "" {
		return advice
	}
	if rcode == "REFUSED" {
		return "It does not serve this server or this name, or it has reached a limit (queries at once, or a second): its log says which."
	}
	if rcode != "SERVFAIL" {
		return declineAdvice(rcode)
	}
	return "Ask it directly (`dig @ADDRESS NAME`): the fault is there or further up (DNSSEC, the zone's servers); try another upstream."
}

// silent tells whether nothing came from an upstream.
func silent(u *trace.Upstream) bool {
	return u.Attempt != nil && u.Attempt.Outcome == trace.OutcomeTimeout ||
		u.Exchange != nil && u.Exchange.Outcome == trace.OutcomeUnanswered
}
