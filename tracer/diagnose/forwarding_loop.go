package diagnose

import (
	"fmt"
	"net/netip"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

const loopAdvice = "Take it out of the server's upstreams, which are often those of /etc/resolv.conf; the plugin `loop` of CoreDNS finds it at start."

// forwardingLoop finds a server whose upstream is, through others or a Service, itself.
// Proof: while it has a question it is asked the same again, at the same address and port in
// the same namespace, by a query that it sent itself or that a server sent which it asked;
// and the lookup failed. Twice, since a server may ask another block of its own once (`view`);
// or once, where a Service led the query back to its sender, which did not get it.
func forwardingLoop(t *trace.Trace) (trace.Finding, bool) {
	if t.Outcome == trace.OutcomeAnswered && t.RCode != "" && !errorCode(t.RCode) {
		return trace.Finding{}, false
	}
	var chain []*trace.Exchange
	if t.Exchange != nil {
		chain = append(chain, t.Exchange)
	}
	l, ok := loopIn(chain, t.Upstreams)
	if !ok {
		return ownUpstream(t)
	}
	asked := l.back[0]
	f := trace.Finding{
		Code:   ForwardingLoop,
		Advice: loopAdvice,
	}
	switch at := loopPlace(t, asked); {
	case l.through == "" && asked.ServerIP == servedAt(asked).Addr():
		f.Summary = fmt.Sprintf("The server's upstream %s is the server itself%s: %s.", server(asked), at, l.howOften())
	case l.through == "":
		f.Summary = fmt.Sprintf("The server's upstream %s leads to the server itself (%s)%s: %s.", server(asked), servedAt(asked).Addr(), at, l.howOften())
	default:
		f.Summary = fmt.Sprintf("The server %s asks %s, which asks it again%s: %s.", servedAt(asked).Addr(), l.through, at, l.howOften())
	}
	for i, ex := range l.back {
		if i == fewDrops {
			f.Evidence = append(f.Evidence, fmt.Sprintf("and %d more like these", len(l.back)-i))
			break
		}
		f.Evidence = append(f.Evidence, cameBackAs(t, ex))
	}
	if d := asked.LastDrop(); d != nil && !answered(asked) {
		f.Evidence = append(f.Evidence, dropQuote(asked, d)+", in "+droppedWhere(t, d))
	}
	if q := t.Query; q != nil && q.Error != "" {
		f.Evidence = append(f.Evidence, fmt.Sprintf("CoreDNS's own words: %q", q.Error))
	}
	f.Evidence = appendIncomplete(f.Evidence, asked)
	return f, true
}

// ownUpstream finds an upstream that has the address and port of the server itself, where
// the record of the server says so alone: in a storm of such queries not all packets are seen.
// It is in doubt, since another block of the server may serve what it asks there (`view`).
func ownUpstream(t *trace.Trace) (trace.Finding, bool) {
	if t.Query == nil || t.Exchange == nil {
		return trace.Finding{}, false
	}
	own := servedAt(t.Exchange)
	for i := range t.Upstreams {
		u := &t.Upstreams[i]
		at := u.Attempt
		if at == nil || u.Exchange != nil || u.Query != nil || at.QName != "" || at.QType != "" || at.Address != own.String() {
			continue
		}
		return trace.Finding{
			Code:    ForwardingLoop,
			Summary: fmt.Sprintf("The server's upstream %s is the server itself.", own),
			Evidence: []string{
				fmt.Sprintf("CoreDNS's attempt %d asked %s, the address at which it got the client's query, for the same name", at.Attempt, own),
				"the packets of that were not observed",
			},
			Advice:  loopAdvice,
			InDoubt: true,
		}, true
	}
	return trace.Finding{}, false
}

// comebacks are the queries of a chain with which a question came back to a server that had
// it already.
type comebacks struct {
	back    []*trace.Exchange
	through string // the server in between; empty: it asked itself
}

func (c comebacks) howOften() string {
	switch {
	case len(c.back) > 1:
	case c.back[0].LastDrop() != nil:
		return "its query was dropped on the way back there"
	default:
		return "nobody answered its query"
	}
	return "the question came back at least " + english.Plural(len(c.back), "time", "")
}

// loopIn looks for a loop in what the last server of a chain asked.
func loopIn(chain []*trace.Exchange, upstreams []trace.Upstream) (comebacks, bool) {
	for i := range upstreams {
		u := &upstreams[i]
		if u.Exchange == nil || u.Exchange.Connects() {
			continue
		}
		if n := len(chain); n > 0 && !sentFor(chain[n-1], u) {
			continue
		}
		longer := append(chain[:len(chain):len(chain)], u.Exchange)
		if l, ok := loopIn(longer, u.Upstreams); ok {
			return l, true
		}
		if l := comingBack(longer); len(l.back) > 1 || len(l.back) == 1 && ledBack(u) {
			return l, true
		}
	}
	return comebacks{}, false
}

// comingBack returns the queries of a chain that came back to the server of the last one.
func comingBack(chain []*trace.Exchange) (l comebacks) {
	last := chain[len(chain)-1]
	first := -1
	for i, ex := range chain {
		switch {
		case i > 0 && !follows(chain[i-1], ex):
			return comebacks{}
		case ex != last && !sameServer(ex, last), ex.QName != last.QName, ex.QType != last.QType:
		case first < 0 && !asksItself(ex):
			first = i
		default:
			if first >= 0 && i-first > 1 && len(l.back) == 0 {
				l.through = servedAt(chain[first+1]).String()
			}
			first = max(first, 0)
			l.back = append(l.back, ex)
		}
	}
	return l
}

// sentFor tells whether a server surely asked an upstream for a query: its record says so, or
// it did at once. What it asks itself later it may want to know, as the plugin loop of
// CoreDNS does, again and again, until it has an answer.
func sentFor(query *trace.Exchange, u *trace.Upstream) bool {
	return u.Attempt != nil || u.Exchange.Time.Sub(query.Time) < slow
}

// sameServer tells whether two queries came to one server: to its address and port behind a
// translation, in its namespace.
func sameServer(a, b *trace.Exchange) bool {
	placeA, knownA := a.ServerPlace()
	placeB, knownB := b.ServerPlace()
	return servedAt(a) == servedAt(b) && knownA && knownB && placeA == placeB
}

// follows tells whether a query was sent where the one before it in a chain came to.
func follows(before, ex *trace.Exchange) bool {
	came, arrived := before.ServerPlace()
	from, sent := ex.ClientPlace()
	return !arrived || !sent || came == from
}

// servedAt is where a query was to be served, behind a translation.
func servedAt(ex *trace.Exchange) netip.AddrPort {
	at := netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)
	if n := ex.NAT; n != nil && n.ServerIP.IsValid() {
		port := ex.ServerPort
		if n.ServerPort != nil {
			port = *n.ServerPort
		}
		at = netip.AddrPortFrom(n.ServerIP, port)
	}
	return at
}

// asksItself tells whether a server's query came to the namespace from which it was sent,
// or was sent on to the address that sent it.
func asksItself(ex *trace.Exchange) bool {
	client, sent := ex.ClientPlace()
	serves, arrived := ex.ServerPlace()
	if sent && arrived {
		return client == serves
	}
	return ex.ClientIP == servedAt(ex).Addr()
}

// ledBack tells whether a Service sent a query back to its sender, which did not get it, as
// where a bridge does not send back through the port that a packet came in by.
func ledBack(u *trace.Upstream) bool {
	ex := u.Exchange
	return len(u.Upstreams) == 0 && translated(ex) && ex.NAT.ServerIP == ex.ClientIP && !answered(ex) && !incomplete(ex)
}

// loopPlace is where the question came back, if that was seen.
func loopPlace(t *trace.Trace, ex *trace.Exchange) string {
	at, ok := ex.Sighting(ex.Milestones.Query.Arrived)
	if !ok {
		return ""
	}
	return " (in " + namespaceOf(t, &at.Device) + ")"
}

// cameBackAs quotes a query with which a question came back.
func cameBackAs(t *trace.Trace, ex *trace.Exchange) string {
	quote := fmt.Sprintf("it was asked for %s %s with the ID %#04x from %s port %d", ex.QName, ex.QType, ex.ID, ex.ClientIP, ex.ClientPort)
	if first := t.Exchange; first != nil && ex.Node == first.Node {
		quote += fmt.Sprintf(", %s after the client asked", took(ex.Time.Sub(first.Time)))
	}
	return quote
}
