package filter

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// Target is which lookups a person means by one word: a trace id, a client
// address, a response code or an outcome, a pod, or a name.
type Target struct {
	text    string
	id      trace.TraceID
	address netip.Addr
	port    uint16         // 0: any
	rcode   string         // empty: no response code is meant
	outcome string         // empty: no outcome is meant
	name    *regexp.Regexp // nil: no name is meant
	pod     *regexp.Regexp // matches pod, or namespace/pod
}

// ParseTarget understands any word: 32 hexadecimal digits are a trace id; an
// address with or without port is a client; with a slash it is NAMESPACE/POD;
// everything else may be a response code such as NXDOMAIN, or unanswered or
// dropped, and may be the name that was looked up or the client's pod, where *
// stands for any characters and the final dot of a name may be left out.
func ParseTarget(text string) *Target {
	t := &Target{text: text}
	if id, err := trace.ParseTraceID(strings.ToLower(text)); err == nil {
		t.id = id
		return t
	}
	if a, err := netip.ParseAddr(text); err == nil {
		t.address = a.Unmap()
		return t
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		t.address, t.port = a.Addr().Unmap(), a.Port()
		return t
	}
	if code := strings.ToUpper(text); isRCode(code) {
		t.rcode = code
	}
	if outcome := strings.ToLower(text); outcome == trace.OutcomeUnanswered || outcome == trace.OutcomeDropped {
		t.outcome = outcome
	}
	t.pod = wildcard(text)
	if !strings.Contains(text, "/") {
		name := strings.ToLower(text)
		if !strings.HasSuffix(name, ".") && !strings.HasSuffix(name, "*") {
			name += "."
		}
		t.name = wildcard(name)
	}
	return t
}

func isRCode(code string) bool {
	_, ok := dns.StringToRcode[code]
	return ok
}

// String returns the word.
func (t *Target) String() string { return t.text }

// Match tells whether a lookup is meant.
func (t *Target) Match(tr *trace.Trace) bool {
	switch {
	case !t.id.IsZero():
		return trace.SameLookup(t.id, tr.TraceID) ||
			tr.Exchange != nil && trace.SameLookup(t.id, tr.Exchange.TraceID) ||
			tr.Query != nil && trace.SameLookup(t.id, tr.Query.TraceID)
	case t.address.IsValid():
		return tr.Exchange != nil && t.matchClient(&tr.Exchange.DNS) || tr.Query != nil && t.matchClient(&tr.Query.DNS)
	case t.name != nil && t.name.MatchString(tr.QName):
		return true
	case t.rcode != "" && t.rcode == tr.RCode, t.outcome != "" && t.outcome == tr.Outcome:
		return true
	}
	c := tr.Client
	return c != nil && c.Pod != "" && (t.pod.MatchString(c.Pod) || t.pod.MatchString(c.Namespace+"/"+c.Pod))
}

func (t *Target) matchClient(q *trace.DNS) bool {
	return q.ClientIP.Unmap() == t.address && (t.port == 0 || t.port == q.ClientPort)
}

// Names returns a test for the names that the lookups have, or nil if they may
// have any: a word with a dot is taken for a name, though in a finished trace it
// may also be a pod. It lets a reader pass over what cannot be meant.
func (t *Target) Names() func(qname string) bool {
	if t.name == nil || !strings.Contains(t.text, ".") {
		return nil
	}
	return t.name.MatchString
}

// Text returns what all of the names have in common, as a record shows them, or
// nothing if that is not known.
func (t *Target) Text() string {
	if t.Names() == nil {
		return ""
	}
	name := strings.ToLower(t.text)
	longest := ""
	for part := range strings.SplitSeq(name, "*") {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// ID returns the trace id that is meant, zero if none is.
func (t *Target) ID() trace.TraceID { return t.id }

// wildcard makes a pattern of a word with *. A name is never anything but UTF-8,
// which is what a pattern must be.
func wildcard(s string) *regexp.Regexp {
	parts := strings.Split(strings.ToValidUTF8(s, "\uFFFD"), "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`^(?s:` + strings.Join(parts, ".*") + `)$`)
}
