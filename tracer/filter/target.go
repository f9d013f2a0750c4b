package filter

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// Target is which lookups a person means by one word: a trace id, an address of the
// client, the server or an upstream, a response code, an outcome or a finding's code, a
// pod, or a name.
type Target struct {
	text    string
	id      trace.TraceID
	address netip.Addr
	port    uint16         // 0: any
	rcode   string         // empty: no response code is meant
	outcome string         // empty: no outcome is meant
	code    string         // of a finding; a word that is none is that of no lookup
	name    *regexp.Regexp // nil: no name is meant
	begin   *regexp.Regexp // of a name: that name, or the same with a search suffix
	pod     *regexp.Regexp // matches pod, or namespace/pod
}

// ParseTarget understands any word: 32 hexadecimal digits are a trace id; an
// address with or without port is the client's, the server's or an upstream's; with a
// slash it is NAMESPACE/POD; everything else may be a response code such as NXDOMAIN, or
// unanswered or dropped, or the code of a finding, and may be the name that was looked up
// or a pod, where * stands for any characters and the final dot of a name may be left out.
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
	t.code = strings.ToLower(text)
	t.pod = wildcard(text)
	if !strings.Contains(text, "/") {
		name := strings.ToLower(text)
		if !strings.HasSuffix(name, ".") && !strings.HasSuffix(name, "*") {
			name += "."
		}
		t.name, t.begin = wildcard(name), regexp.MustCompile(beginning(name))
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
			tr.Exchange != nil && trace.SameLookup(t.id, tr.Exchange.TraceID) || t.matchRecords(tr.Query, tr.Upstreams)
	case t.address.IsValid():
		return t.matchExchange(tr.Exchange) || t.matchQuery(tr.Query) || t.matchUpstreams(tr.Upstreams)
	case t.name != nil && t.name.MatchString(tr.QName):
		return true
	}
	return t.MatchResult(tr) || t.matchPod(tr.Client) || t.matchPod(tr.Server)
}

// MatchSuffixed tells whether a lookup is of the name with a search suffix: what is meant
// where the name itself was never asked. A final dot means that name and no other.
func (t *Target) MatchSuffixed(tr *trace.Trace) bool {
	return t.begin != nil && !strings.HasSuffix(t.text, ".") && t.begin.MatchString(tr.QName)
}

// MatchResult tells whether a lookup is meant for how it ended: by its response code, its
// outcome, or a finding.
func (t *Target) MatchResult(tr *trace.Trace) bool {
	return t.rcode != "" && t.rcode == tr.RCode || t.outcome != "" && t.outcome == tr.Outcome ||
		t.code != "" && slices.ContainsFunc(tr.Diagnosis, func(f trace.Finding) bool { return f.Code == t.code })
}

// matchRecords looks at the servers' own records: one further on may have adopted the
// trace of a server between that traces, which has no record here.
func (t *Target) matchRecords(q *trace.Query, below []trace.Upstream) bool {
	return q != nil && trace.SameLookup(t.id, q.TraceID) ||
		slices.ContainsFunc(below, func(u trace.Upstream) bool { return t.matchRecords(u.Query, u.Upstreams) })
}

func (t *Target) matchPod(e *trace.Endpoint) bool {
	return e != nil && e.Pod != "" && (t.pod.MatchString(e.Pod) || t.pod.MatchString(e.Namespace+"/"+e.Pod))
}

func (t *Target) matchAddress(ip netip.Addr, port uint16) bool {
	return ip.Unmap() == t.address && (t.port == 0 || t.port == port)
}

// matchExchange looks at both ends, and at what the server was translated to.
func (t *Target) matchExchange(e *trace.Exchange) bool {
	if e == nil {
		return false
	}
	if n := e.NAT; n != nil && n.ServerIP.IsValid() {
		port := e.ServerPort
		if n.ServerPort != nil {
			port = *n.ServerPort
		}
		if t.matchAddress(n.ServerIP, port) {
			return true
		}
	}
	return t.matchAddress(e.ClientIP, e.ClientPort) || t.matchAddress(e.ServerIP, e.ServerPort)
}

func (t *Target) matchQuery(q *trace.Query) bool {
	if q == nil {
		return false
	}
	return t.matchAddress(q.ClientIP, q.ClientPort) || t.matchAddress(q.ServerIP, q.ServerPort) ||
		slices.ContainsFunc(q.Upstreams, func(a trace.Attempt) bool { return t.matchAttempt(&a) })
}

func (t *Target) matchAttempt(a *trace.Attempt) bool {
	if a == nil {
		return false
	}
	at, err := netip.ParseAddrPort(a.Address)
	return err == nil && t.matchAddress(at.Addr(), at.Port())
}

// matchUpstreams matches the servers of the queries to upstreams, not their client, which is
// the server.
func (t *Target) matchUpstreams(all []trace.Upstream) bool {
	return slices.ContainsFunc(all, func(u trace.Upstream) bool {
		return t.matchAttempt(u.Attempt) || t.matchUpstreams(u.Upstreams) ||
			slices.ContainsFunc(u.Exchanges(), func(e *trace.Exchange) bool { return t.matchAddress(e.ServerIP, e.ServerPort) })
	})
}

// Names returns a test for the names of the lookups and of others of their calls: the name
// with a search suffix; nil if they may have any. A word with a dot is taken for a name,
// though in a finished trace it may also be a pod. With it a reader can skip other lookups.
func (t *Target) Names() func(qname string) bool {
	if t.name == nil || !strings.Contains(t.text, ".") {
		return nil
	}
	return t.begin.MatchString
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
func wildcard(s string) *regexp.Regexp { return regexp.MustCompile(beginning(s) + "$") }

// beginning matches what begins with a word.
func beginning(s string) string {
	parts := strings.Split(strings.ToValidUTF8(s, "\uFFFD"), "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return `^(?s:` + strings.Join(parts, ".*") + `)`
}
