//go:build cilium

package cilium

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// judge returns what is wrong with what was said of a lookup.
func (l lookup) judge(traces []*trace.Trace, v variant) []string {
	if l.want.untraced {
		if len(traces) != 0 {
			return []string{fmt.Sprintf("%d traces of a lookup without a packet", len(traces))}
		}
		return nil
	}
	if len(traces) != 1 {
		return []string{fmt.Sprintf("%d traces", len(traces))}
	}
	t := traces[0]
	wrong := slices.Concat(l.clientSide(t), l.findings(t), l.gaps(t))
	if l.proxied(v) {
		wrong = slices.Concat(wrong, l.serverSide(t, proxy), l.behindProxy(t))
	} else {
		wrong = slices.Concat(wrong, l.serverSide(t, l.want.pod), l.attempts(t.Query, t.Upstreams, t.Server))
	}
	if !slices.Contains(l.want.outcomes, t.Outcome) {
		wrong = append(wrong, fmt.Sprintf("outcome %s, expected %s", t.Outcome, strings.Join(l.want.outcomes, " or ")))
	}
	if rcode := l.rcode(); t.RCode != rcode {
		wrong = append(wrong, fmt.Sprintf("rcode %q, expected %q", t.RCode, rcode))
	}
	if t.Exchange == nil {
		return append(wrong, "its packets were not observed")
	}
	if t.Exchange.Transmissions != 1 && !l.want.connects { // TCP repeats a SYN
		wrong = append(wrong, fmt.Sprintf("%d transmissions", t.Exchange.Transmissions))
	}
	if t.Outcome == trace.OutcomeAnswered {
		wrong = append(wrong, milestones(t.Exchange)...)
	}
	return wrong
}

// milestones judges an exchange that was answered: both messages were seen to leave and
// to arrive.
func milestones(e *trace.Exchange) []string {
	m := e.Milestones
	if m.Query.Left.Seen() && m.Query.Arrived.Seen() && m.Response.Left.Seen() && m.Response.Arrived.Seen() {
		return nil
	}
	return []string{fmt.Sprintf("milestones %+v", m)}
}

// gaps judges what is said not to have been seen: all is, but for a query that is turned
// away before CoreDNS, which has no record of it.
func (l lookup) gaps(t *trace.Trace) []string {
	var wrong []string
	before := l.want.service == "kube-system/kube-dns" && l.want.pod == "" && t.Outcome != trace.OutcomeAnswered
	for _, g := range t.Gaps {
		if g != trace.GapNotRecorded || !before {
			wrong = append(wrong, "gap: "+g)
		}
	}
	return wrong
}

// rcode is that of the response that the client got, if one.
func (l lookup) rcode() string {
	if l.result == silence || l.result == refused {
		return ""
	}
	code, _, _ := strings.Cut(l.result, " ")
	return code
}

// clientSide judges who asked.
func (l lookup) clientSide(t *trace.Trace) []string {
	if c := t.Client; c == nil || c.Pod != l.pod || c.Namespace != "demo" || c.Node != "node1" {
		return []string{fmt.Sprintf("client %+v, expected the pod %s", c, l.pod)}
	}
	return nil
}

// serverSide judges who was asked: the Service by name, and a pod by the start of its name.
// The agent is no pod here.
func (l lookup) serverSide(t *trace.Trace, pod string) []string {
	s := t.Server
	if s == nil {
		s = &trace.Endpoint{}
	}
	var wrong []string
	if s.Service != l.want.service {
		wrong = append(wrong, fmt.Sprintf("Service %q, expected %q", s.Service, l.want.service))
	}
	if e := t.Exchange; s.Service != "" && e != nil && s.ServiceInferred != !slices.Contains(serviceIPs, e.ServerIP.String()) {
		wrong = append(wrong, fmt.Sprintf("Service inferred: %v, of packets to %s", s.ServiceInferred, e.ServerIP))
	}
	name := s.Pod
	if pod == proxy {
		name = s.Process
	}
	if pod == proxy && name == "" && t.Outcome != trace.OutcomeAnswered {
		return wrong // it answered nothing, which would show who it is
	}
	if !strings.HasPrefix(name, pod) || l.want.service == "" && s.Pod != "" {
		wrong = append(wrong, fmt.Sprintf("server %q, expected %s…", name, pod))
	}
	return wrong
}

// proxy is the process that answers in CoreDNS's place where names are the policy's.
const proxy = "cilium-agent"

// proxied tells whether the query goes through the agent's DNS proxy.
func (l lookup) proxied(v variant) bool { return v.names && l.pod == "client" && l.server == "" }

// behindProxy judges what the agent asked CoreDNS in turn: the same lookup, over
// addresses that look like the client's.
func (l lookup) behindProxy(t *trace.Trace) []string {
	if !l.want.recorded && l.want.pod == "" {
		return l.attempts(t.Query, t.Upstreams, nil)
	}
	if t.Query != nil || len(t.Upstreams) != 1 || t.Upstreams[0].Exchange == nil {
		return []string{fmt.Sprintf("a record of CoreDNS: %v, %d upstreams, expected the agent's query and behind it CoreDNS's record", t.Query != nil, len(t.Upstreams))}
	}
	u := t.Upstreams[0]
	e := u.Exchange
	var wrong []string
	if e.Client == nil || e.Client.Process != proxy || e.Server == nil || !strings.HasPrefix(e.Server.Pod, l.want.pod) {
		wrong = append(wrong, fmt.Sprintf("behind the agent: client %+v, server %+v", e.Client, e.Server))
	}
	if e.RCode != l.rcode() {
		wrong = append(wrong, fmt.Sprintf("behind the agent: rcode %q, expected %q", e.RCode, l.rcode()))
	}
	return append(wrong, l.attempts(u.Query, u.Upstreams, e.Server)...)
}

// findings judges what was found.
func (l lookup) findings(t *trace.Trace) []string {
	var wrong []string
	allowed := l.want.may
	for _, one := range l.want.findings {
		allowed = slices.Concat(allowed, one)
		if !slices.ContainsFunc(t.Diagnosis, func(f trace.Finding) bool { return slices.Contains(one, f.Code) }) {
			wrong = append(wrong, fmt.Sprintf("no finding %s", strings.Join(one, " or ")))
		}
	}
	seen := map[string]bool{}
	for _, f := range t.Diagnosis {
		if !slices.Contains(allowed, f.Code) {
			wrong = append(wrong, fmt.Sprintf("false finding %s: %s", f.Code, f.Summary))
		}
		if seen[f.Code] {
			wrong = append(wrong, fmt.Sprintf("finding %s twice: %s", f.Code, f.Summary))
		}
		seen[f.Code] = true
	}
	if !slices.ContainsFunc(t.Diagnosis, func(f trace.Finding) bool { return strings.Contains(f.Summary, l.want.says) }) && l.want.says != "" {
		wrong = append(wrong, fmt.Sprintf("no finding says %q", l.want.says))
	}
	for _, f := range t.Diagnosis {
		if text := strings.Join(append(f.Evidence, f.Summary, f.Advice), "\n"); strings.Contains(text, l.want.never) && l.want.never != "" {
			wrong = append(wrong, fmt.Sprintf("it names %q: %s", l.want.never, text))
		}
	}
	return wrong
}

// attempts judges CoreDNS's record, and that each attempt in it has packets of its own.
func (l lookup) attempts(q *trace.Query, upstreams []trace.Upstream, server *trace.Endpoint) []string {
	switch {
	case q == nil && !l.want.recorded:
		if len(upstreams) != 0 {
			return []string{fmt.Sprintf("%d upstreams of a query that CoreDNS did not get", len(upstreams))}
		}
		return nil
	case q == nil || !l.want.recorded:
		return []string{fmt.Sprintf("a record of CoreDNS: %v, expected %v", q != nil, l.want.recorded)}
	case q.AnsweredBy != l.want.answerer:
		return []string{fmt.Sprintf("answered by %q, expected %q", q.AnsweredBy, l.want.answerer)}
	}
	var wrong []string
	if l.want.cache != "" && q.Cache != l.want.cache {
		wrong = append(wrong, fmt.Sprintf("cache %s, expected %s", q.Cache, l.want.cache))
	}
	if len(upstreams) != len(q.Upstreams) {
		wrong = append(wrong, fmt.Sprintf("%d upstreams of %d attempts", len(upstreams), len(q.Upstreams)))
	}
	var made []wantAttempt
	flows := map[trace.Flow]bool{}
	for i, u := range upstreams {
		for _, w := range attempt(u, server, flows) {
			wrong = append(wrong, fmt.Sprintf("upstream %d: %s", i+1, w))
		}
		if u.Attempt != nil {
			made = append(made, wantAttempt{u.Attempt.Address, u.Attempt.Outcome})
		}
	}
	if made = slices.Compact(made); !slices.Equal(made, l.want.upstreams) {
		wrong = append(wrong, fmt.Sprintf("attempts %v, expected %v", made, l.want.upstreams))
	}
	return wrong
}

// attempt judges one attempt of a server with the packets of it, whose flows none before
// it has.
func attempt(u trace.Upstream, server *trace.Endpoint, flows map[trace.Flow]bool) []string {
	e := u.Exchange
	if u.Attempt == nil || e == nil || u.Join != trace.JoinExact {
		return []string{fmt.Sprintf("attempt %v, exchange %v, join %s", u.Attempt != nil, e != nil, u.Join)}
	}
	var wrong []string
	if flows[e.Flow] {
		wrong = append(wrong, "the packets of another attempt")
	}
	flows[e.Flow] = true
	outcome := map[string]string{trace.OutcomeOK: trace.OutcomeAnswered, trace.OutcomeTimeout: trace.OutcomeUnanswered}[u.Attempt.Outcome]
	if e.Outcome != outcome {
		wrong = append(wrong, fmt.Sprintf("exchange %s of an attempt that ended as %s", e.Outcome, u.Attempt.Outcome))
	}
	if to := fmt.Sprintf("%s:%d", e.ServerIP, e.ServerPort); to != u.Attempt.Address {
		wrong = append(wrong, fmt.Sprintf("packets to %s of an attempt at %s", to, u.Attempt.Address))
	}
	if server != nil && (e.Client == nil || e.Client.Pod != server.Pod) {
		wrong = append(wrong, fmt.Sprintf("asked by %+v, expected the pod %s", e.Client, server.Pod))
	}
	if e.Server != nil && (e.Server.Pod != "" || e.Server.Service != "") {
		wrong = append(wrong, fmt.Sprintf("asked a pod or Service: %+v", e.Server))
	}
	return wrong
}

// excerpt is a trace as a person who looks for what is wrong reads it.
func excerpt(t *trace.Trace) string {
	b, err := json.MarshalIndent(json.RawMessage(t.AppendJSON(nil)), "", " ")
	if err != nil {
		return err.Error()
	}
	const enough = 30000
	return string(b[:min(len(b), enough)])
}
