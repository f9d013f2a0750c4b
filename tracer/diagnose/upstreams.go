package diagnose

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// healthWindow is for how long what an upstream did is remembered.
const healthWindow = time.Minute

// Bounds of what is remembered of one upstream, the latest of each.
const (
	maxNames = 32
	maxTypes = 4
	maxLoad  = 64
)

// upstreamSeen is what is remembered of an upstream.
type upstreamSeen struct {
	queries *window // all, and those that failed
	names   []*nameSeen
	load    []served // the latest responses, in the order in which they were reported
}

// nameSeen is how an upstream treated one name.
type nameSeen struct {
	name  string
	at    time.Time // of the latest query
	types []typeSeen
}

// typeSeen is how an upstream treated one type of a name.
type typeSeen struct {
	qtype    string
	answered time.Time // the latest answer that is no error
	failed   time.Time // the latest query without one
	silent   int       // queries without any response since the latest response
}

// served is one query that an upstream responded to.
type served struct {
	at          time.Time
	outstanding int // other queries that waited for it
	refused     bool
}

// upstream returns what is remembered of an upstream.
func (m *memory) upstream(addr string) *upstreamSeen {
	u := m.upstreams[addr]
	if u == nil {
		if len(m.upstreams) >= maxUpstreams {
			forgetStalest(m.upstreams, func(u *upstreamSeen) int64 { return u.queries.latest() })
		}
		u = &upstreamSeen{queries: newWindow(healthWindow)}
		m.upstreams[addr] = u
	}
	return u
}

// outcome is how one query to an upstream ended.
type outcome struct {
	at     time.Time
	failed bool // no response, or one that says that the server failed
	silent bool // no response came, where it would have been seen
}

// learn notes how a query for a name ended.
func (u *upstreamSeen) learn(name, qtype string, o outcome) {
	n := u.name(name)
	if n == nil {
		if len(u.names) >= maxNames {
			oldest := slices.MinFunc(u.names, func(a, b *nameSeen) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
			u.names = slices.DeleteFunc(u.names, func(n *nameSeen) bool { return n == oldest })
		}
		n = &nameSeen{name: name}
		u.names = append(u.names, n)
	}
	n.at = latest(n.at, o.at)
	ty := n.qtype(qtype)
	switch {
	case !o.failed:
		ty.answered, ty.silent = latest(ty.answered, o.at), 0
	case o.silent:
		ty.failed = latest(ty.failed, o.at)
		ty.silent++
	default:
		ty.failed, ty.silent = latest(ty.failed, o.at), 0
	}
}

func (u *upstreamSeen) name(name string) *nameSeen {
	for _, n := range u.names {
		if n.name == name {
			return n
		}
	}
	return nil
}

func (n *nameSeen) qtype(qtype string) *typeSeen {
	for i := range n.types {
		if n.types[i].qtype == qtype {
			return &n.types[i]
		}
	}
	if len(n.types) >= maxTypes {
		n.types = n.types[:copy(n.types, n.types[1:])]
	}
	n.types = append(n.types, typeSeen{qtype: qtype})
	return &n.types[len(n.types)-1]
}

// answers tells whether any type of the name was answered in the window before a time.
func (n *nameSeen) answers(at time.Time) bool {
	return slices.ContainsFunc(n.types, func(t typeSeen) bool { return within(t.answered, at) })
}

// fails tells whether a type of the name failed in the window before a time.
func (n *nameSeen) fails(at time.Time) bool {
	return slices.ContainsFunc(n.types, func(t typeSeen) bool { return within(t.failed, at) })
}

// count returns how many of the latest names an upstream answered, and how many it failed
// with every type, in the window before a time. What it answered once, and a cache does
// still, counts as answered.
func (m *memory) count(u *upstreamSeen, at time.Time) (answered, failed int) {
	for _, n := range u.names {
		cached := within(m.hits[n.name], at) && slices.ContainsFunc(n.types, func(t typeSeen) bool { return !t.answered.IsZero() })
		switch {
		case n.answers(at), cached:
			answered++
		case n.fails(at):
			failed++
		}
	}
	return answered, failed
}

func within(t, at time.Time) bool { return !t.IsZero() && at.Sub(t) < healthWindow }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// learnUpstreams notes what a trace tells of upstreams, and which names a cache answers: those
// are answered, too, though their upstream is not asked.
func (m *memory) learnUpstreams(t *trace.Trace) {
	if t.Replaces {
		return // what it replaces was noted
	}
	eachUpstream(t.Upstreams, func(up *trace.Upstream) {
		o, known := outcomeOf(t, up)
		if !known {
			return
		}
		u := m.upstream(address(up))
		u.queries.add(o.at, o.failed)
		name, qtype := questionTo(t, up)
		u.learn(name, qtype, o)
		if ex := up.Exchange; ex != nil && ex.Duration != nil {
			u.serve(served{ex.Time, ex.Outstanding, ex.RCode == "REFUSED"})
		}
	})
	if q := t.Query; q != nil && q.Cache == trace.CacheHit && !errorCode(q.RCode) {
		if _, known := m.hits[q.QName]; !known && len(m.hits) >= maxHits {
			forgetStalest(m.hits, time.Time.UnixNano)
		}
		m.hits[q.QName] = latest(m.hits[q.QName], q.Time)
	}
}

func (u *upstreamSeen) serve(s served) {
	if len(u.load) >= maxLoad {
		u.load = u.load[:copy(u.load, u.load[1:])]
	}
	u.load = append(u.load, s)
}

// questionTo returns what an upstream was asked for.
func questionTo(t *trace.Trace, u *trace.Upstream) (name, qtype string) {
	name, qtype = t.QName, t.QType
	switch ex, at := u.Exchange, u.Attempt; {
	case ex != nil && !ex.Connects():
		return ex.QName, ex.QType
	case at != nil:
		if at.QName != "" {
			name = at.QName
		}
		if at.QType != "" {
			qtype = at.QType
		}
	}
	return name, qtype
}

// outcomeOf returns how a query to an upstream ended; not known where it cannot be reported:
// packets may be missing, or the address is unknown.
func outcomeOf(t *trace.Trace, u *trace.Upstream) (o outcome, known bool) {
	switch ex := u.Exchange; {
	case closedUntold(t, u):
		return o, false // it answered, in whatever time
	case ex != nil && ruledOut(ex):
		return o, false // whatever it would have answered
	case ex != nil && (ex.Outcome != trace.OutcomeUnanswered || !incomplete(ex)):
		return outcome{ex.Time, ex.Outcome != trace.OutcomeAnswered || errorCode(ex.RCode), silentExchange(ex) && len(ex.Rejected) == 0}, true
	case u.Attempt != nil && u.Attempt.Address != "" && u.Attempt.Outcome != "":
		start := t.Time
		if t.Query != nil {
			start = t.Query.Time
		}
		return outcome{start.Add(u.Attempt.Start.Duration()), u.Attempt.Outcome != trace.OutcomeOK, u.Attempt.Outcome == trace.OutcomeTimeout}, true
	}
	return o, false
}

// ruledOut tells whether a firewall, or an eBPF program, let no query of an exchange pass.
func ruledOut(ex *trace.Exchange) bool {
	d := ex.LastDrop()
	return ex.Outcome == trace.OutcomeDropped && d != nil && d.Message == trace.MessageQuery && (d.BPF != "" || byNetfilter(d))
}

// byUpstream is what findings about queries to one upstream have in common. One whose address
// is not known is alone.
type byUpstream struct {
	code  string
	addr  netip.AddrPort
	alone *trace.Upstream
}

func upstreamLike(u *trace.Upstream, f *trace.Finding) byUpstream {
	k := byUpstream{code: f.Code, addr: upstreamOf(u)}
	if !k.addr.IsValid() {
		k.alone = u
	}
	return k
}

// eachUpstream visits a tree.
func eachUpstream(upstreams []trace.Upstream, visit func(*trace.Upstream)) {
	for i := range upstreams {
		visit(&upstreams[i])
		eachUpstream(upstreams[i].Upstreams, visit)
	}
}
