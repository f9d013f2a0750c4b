package cases

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// checkAlways wants what holds of every row: each trace is of a lookup of a client, each
// attempt has its packets, each message that an upstream got is where it belongs, and
// nothing is said that a server with the plugin contradicts.
func (c *caseLab) checkAlways() {
	c.t.Helper()
	asking := c.asking()
	for _, t := range c.traces {
		switch {
		case t.Exchange == nil:
			c.t.Errorf("%s: CoreDNS's record is a trace of its own", describe(t))
			continue
		case asking[t.Exchange.ClientIP]:
			c.t.Errorf("%s: an upstream query is a trace of its own", describe(t))
		case t.Exchange.LostEvents > 0:
			c.t.Errorf("%s: the tracer lost %d events", describe(t), t.Exchange.LostEvents)
		}
		if !c.row.unrecorded && strings.Contains(words(t), "never recorded") {
			c.t.Errorf("%s: it is said that CoreDNS has no record: %s", describe(t), words(t))
		}
		c.checkAttempts(t)
	}
	c.checkReceived()
}

// asking are the addresses of the servers that ask others because they are asked.
func (c *caseLab) asking() map[netip.Addr]bool {
	hosts := c.row.servers
	if hosts == nil {
		hosts = []string{lab.CoreDNS}
	}
	found := make(map[netip.Addr]bool)
	for _, h := range hosts {
		found[c.Host(h).V4], found[c.Host(h).V6] = true, true
	}
	return found
}

// checkAttempts wants the packets of each attempt that CoreDNS made, in its time, and no
// others.
func (c *caseLab) checkAttempts(t *trace.Trace) {
	c.t.Helper()
	if t.Query == nil {
		return
	}
	var last time.Time
	for i := range t.Upstreams {
		u := &t.Upstreams[i]
		switch {
		case u.Attempt == nil && t.Exchange.Transmissions > 1:
			continue // of the record of the repeated query, on which the server works at the same time
		case u.Attempt == nil:
			c.t.Errorf("%s: packets of no attempt: %s", describe(t), describeUpstream(u))
		case c.row.unasked && u.Exchange == nil:
		case u.Exchange == nil, u.Join == trace.JoinNone:
			c.t.Errorf("%s: attempt %d has no packets", describe(t), u.Attempt.Attempt)
		}
		for _, ex := range attemptExchanges(u) {
			if ex.Time.Before(last) {
				c.t.Errorf("%s: attempt %d has packets from before those of the one before", describe(t), i+1)
			}
			last = ex.Time
		}
	}
	// A query that the client repeats has a record for each time.
	if len(t.Upstreams) < len(t.Query.Upstreams) {
		c.t.Errorf("%s: CoreDNS made %d attempts", describe(t), len(t.Query.Upstreams))
	} else if len(t.Upstreams) == len(t.Query.Upstreams) {
		c.checkTimes(t)
	}
}

// checkTimes wants the packets of each attempt to have been sent while it lasted.
func (c *caseLab) checkTimes(t *trace.Trace) {
	c.t.Helper()
	const slack = time.Millisecond // between the clocks of the kernel and of CoreDNS
	for i := range t.Upstreams {
		u := &t.Upstreams[i]
		if u.Attempt == nil || u.Attempt.Duration == nil {
			continue
		}
		begin := t.Query.Time.Add(u.Attempt.Start.Duration())
		end := begin.Add(u.Attempt.Duration.Duration())
		for _, ex := range attemptExchanges(u) {
			if ex.Time.Before(begin.Add(-slack)) || ex.Time.After(end.Add(slack)) {
				c.t.Errorf("%s: attempt %d lasted from %s to %s, its packets are from %s", describe(t), i+1, begin, end, ex.Time)
			}
		}
	}
}

// selfTest is the type that the plugin loop asks itself for, again and again until it has an
// answer.
const selfTest = "HINFO"

// asked is what an upstream is asked for.
type asked struct {
	server      netip.Addr
	name, qtype string
}

// checkReceived compares the DNS IDs that the upstreams got, by question, with those in
// the traces.
func (c *caseLab) checkReceived() {
	c.t.Helper()
	got, want := make(map[asked][]uint16), c.received()
	for _, t := range c.traces {
		for _, ex := range exchangesOf(t) {
			// What a connection that the server had closed carried, it never got.
			if key := (asked{ex.ServerIP, ex.QName, ex.QType}); c.isUpstream(ex.ServerIP) && !ex.Connects() && ex.Reset == nil && ex.QType != selfTest {
				got[key] = append(got[key], ex.ID)
			}
		}
	}
	for key, ids := range want {
		slices.Sort(ids)
		slices.Sort(got[key])
		if !slices.Equal(got[key], ids) {
			c.t.Errorf("%s was asked for %s %s with the IDs %04x, in the traces there are %04x", key.server, key.name, key.qtype, ids, got[key])
		}
	}
	for key, ids := range got {
		if want[key] == nil {
			c.t.Errorf("%s was not asked for %s %s, in the traces it was, with %04x", key.server, key.name, key.qtype, ids)
		}
	}
}

// received are the IDs that the upstreams got. A query that comes again with the same ID
// from the same port is the same one.
func (c *caseLab) received() map[asked][]uint16 {
	found := make(map[asked][]uint16)
	for i := range c.upstreams() {
		clients := make(map[asked]netip.AddrPort)
		for _, r := range c.Upstream(i).Received() {
			if r.Name == "." || r.Name == lastName || dns.TypeToString[r.Type] == selfTest {
				continue
			}
			key := asked{r.Server.Addr(), r.Name, dns.TypeToString[r.Type]}
			ids := found[key]
			if len(ids) > 0 && ids[len(ids)-1] == r.ID && clients[key] == r.Client {
				continue
			}
			found[key], clients[key] = append(ids, r.ID), r.Client
		}
	}
	return found
}

func (c *caseLab) isUpstream(addr netip.Addr) bool {
	return lab.UpstreamNetV4.Contains(addr) || lab.UpstreamNetV6.Contains(addr)
}

// exchangesOf returns the exchanges of a trace in order: the client's, and those of each
// attempt and of what is behind it.
func exchangesOf(t *trace.Trace) []*trace.Exchange {
	var all []*trace.Exchange
	if t.Exchange != nil {
		all = append(all, t.Exchange)
	}
	return append(all, below(t.Upstreams)...)
}

func below(upstreams []trace.Upstream) []*trace.Exchange {
	var all []*trace.Exchange
	for i := range upstreams {
		u := &upstreams[i]
		all = append(all, attemptExchanges(u)...)
		all = append(all, below(u.Upstreams)...)
	}
	return all
}

// attemptExchanges returns the exchanges of one attempt in order.
func attemptExchanges(u *trace.Upstream) []*trace.Exchange {
	all := slices.Clone(u.Earlier)
	if u.Exchange != nil {
		all = append(all, u.Exchange)
	}
	return all
}

// words is all that the findings of a trace say.
func words(t *trace.Trace) string {
	var all []string
	for _, f := range t.Diagnosis {
		all = append(all, f.Code+": "+f.Summary)
		all = append(all, f.Evidence...)
		all = append(all, f.Advice)
	}
	return strings.Join(all, "\n")
}

// codes are those of the findings of a trace.
func codes(t *trace.Trace) []string {
	var all []string
	for _, f := range t.Diagnosis {
		all = append(all, f.Code)
	}
	return all
}

// describe says in a line what a trace is about.
func describe(t *trace.Trace) string {
	text := fmt.Sprintf("%s %s %s", t.Time.Format("05.000000"), t.QName, t.QType)
	if ex := t.Exchange; ex != nil {
		text += fmt.Sprintf(" (%s from %s to %s)", ex.Protocol, netip.AddrPortFrom(ex.ClientIP, ex.ClientPort), ex.ServerIP)
		if ex.Client != nil {
			text += fmt.Sprintf(" by process %d", ex.Client.PID)
		}
		if ex.AnswerCount != nil {
			text += fmt.Sprintf(", %d records", *ex.AnswerCount)
		}
	}
	text += fmt.Sprintf(" %s %s", t.Outcome, t.RCode)
	if t.Duration != nil {
		text += fmt.Sprintf(" after %s", t.Duration.Duration())
	}
	for i := range t.Upstreams {
		text += "; " + describeUpstream(&t.Upstreams[i])
	}
	return text + fmt.Sprintf("; %v", codes(t))
}

func describeUpstream(u *trace.Upstream) string {
	text := "no attempt"
	if u.Attempt != nil {
		text = fmt.Sprintf("attempt %d of %s %s", u.Attempt.Attempt, u.Attempt.Address, u.Attempt.Outcome)
	}
	for _, ex := range attemptExchanges(u) {
		text += fmt.Sprintf(", %s %04x %s %s %s", ex.Protocol, ex.ID, ex.QName, ex.Outcome, ex.RCode)
	}
	return text + ", join " + u.Join
}
