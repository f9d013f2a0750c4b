package assemble

import (
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/peer"
)

// Any process that may write to the record socket can send a record of any query. It is
// believed if packets show its sender as the server: docs/model.md says
// how that is decided. Records from a file have no sender, and are their reader's to judge.

// ownership is whether the process that sent a record is the server of an exchange.
type ownership int

const (
	foreign ownership = iota // another one is
	unknown                  // the packets do not show it
	own
)

// process is a process that packets show as a server.
type process struct {
	place trace.Place
	addrs map[netip.AddrPort]bool // at which it served
	seen  time.Time               // when a packet showed it last
}

// show records that a process, or where it is unknown its cgroup, serves at a place, and
// reports whether that is new.
func (s *servers) show(ex *trace.Exchange, place trace.Place) (news bool) {
	if ex.Server == nil {
		return false
	}
	var p *process
	switch pid, cgroup := ex.Server.PID, ex.Server.Cgroup; {
	case pid != 0:
		p = shown(s.processes, pid)
	case cgroup != "":
		p = shown(s.cgroups, cgroup)
	default:
		return false
	}
	if p.place != place {
		p.place, p.addrs = place, map[netip.AddrPort]bool{} // the number of a process is reused
	}
	if at := lastOf(ex); at.After(p.seen) {
		p.seen = at
	}
	for _, addr := range serverAddrs(ex) {
		if len(p.addrs) < maxPIDs && !p.addrs[addr] {
			p.addrs[addr], news = true, true
		}
	}
	return news
}

// lastOf returns up to when the packets of an exchange were seen that its server took or
// sent.
func lastOf(ex *trace.Exchange) time.Time {
	last := ex.Time
	if n := ex.Path.Len(); n > 0 {
		last = last.Add(ex.Path.Offset(n - 1).Duration())
	}
	if ex.Duration != nil && ex.Time.Add(ex.Duration.Duration()).After(last) {
		last = ex.Time.Add(ex.Duration.Duration())
	}
	return last
}

func shown[K comparable](known map[K]*process, key K) *process {
	p := known[key]
	if p == nil {
		if len(known) >= maxAddrs {
			clear(known)
		}
		p = &process{addrs: map[netip.AddrPort]bool{}}
		known[key] = p
	}
	return p
}

// process returns the server that a sender is; nil: packets show it as none.
func (s *servers) process(from *peer.Process) *process {
	if p := s.byPID(from); p != nil {
		return p
	}
	for cgroup, p := range s.cgroups {
		if from.In(cgroup) {
			return p
		}
	}
	return nil
}

// byPID returns the server whose process a sender is. A reused number is another process's,
// which started after packets showed the server last.
func (s *servers) byPID(from *peer.Process) *process {
	if p := s.processes[from.PID]; p != nil && !from.After(p.seen) {
		return p
	}
	return nil
}

func (p *process) serves(addr netip.Addr) bool {
	for at := range p.addrs {
		if at.Addr() == addr {
			return true
		}
	}
	return false
}

// owner tells whether the sender of a record is the server of an exchange.
func (s *servers) owner(from *peer.Process, q *trace.Query, ex *trace.Exchange) ownership {
	switch {
	case from != nil:
	case q.Unverified:
		return unknown
	default:
		return own
	}
	place, placed := ex.ServerPlace()
	if placed && from.PID != 0 {
		// Also where the packets of this exchange do not tell who it was.
		if p := s.byPID(from); p != nil && p.place == place && p.addrs[translated(ex)] {
			return own
		}
	}
	e := ex.Server
	if e == nil {
		return unknown
	}
	if e.PID != 0 && e.PID == from.PID && from.After(lastOf(ex)) {
		return foreign // which has its number by now
	}
	is := sentBy(from, e.PID, e.Cgroup)
	if srv := s.at[place]; is == own && e.PID == 0 && srv != nil && len(srv.pids) > 0 {
		return unknown // a process of its cgroup, but none of those that were seen to serve there
	}
	return is
}

// sentBy tells whether a sender is the process that packets show, with its cgroup; zero
// values are not known.
func sentBy(from *peer.Process, pid int, cgroup string) ownership {
	switch {
	case pid != 0 && from.PID != 0:
		if pid == from.PID {
			return own
		}
		return foreign
	case cgroup == "" || from.Cgroup == "" && from.Container == "":
		return unknown
	case !from.In(cgroup):
		return foreign
	case pid != 0 && from.Container == "":
		return unknown // its number is not known, and a cgroup that is no container has others in it
	}
	return own
}

// believes tells whether a record may be shown though no packet of its query was seen: its
// sender is a server, at the address that the record names if it names one.
func (a *Assembler) believes(l *lookup) bool {
	if l.from == nil {
		return true
	}
	p := a.servers.process(l.from)
	q := l.query
	if q == nil {
		return p != nil
	}
	if p != nil && (!q.ServerIP.IsValid() || q.ServerIP.IsUnspecified() || p.serves(q.ServerIP)) {
		return true
	}
	if a.readBy(l.from, q) {
		return true
	}
	// Where the packets of most lookups are left out, it may not have been seen to serve.
	return a.cfg.Limitations.Unsampled != "" && a.cfg.Sockets != nil && a.cfg.Sockets.Holds(l.from.PID, q.ServerPort)
}

// readBy tells whether packets show that the sender of a record read its query, whose
// exchange is not over: the first query of a server may stay without a response for long.
func (a *Assembler) readBy(from *peer.Process, q *trace.Query) bool {
	if a.cfg.Open == nil {
		return false
	}
	pid, cgroup := a.cfg.Open.Server(q)
	return sentBy(from, pid, cgroup) == own
}

// admit takes the attempts of a record into account, once it is believed.
func (a *Assembler) admit(l *lookup) {
	if l.admitted {
		return
	}
	l.admitted = true
	if l.list == &a.strangers {
		l.remove()
		a.held.push(l)
	}
	for _, q := range l.records {
		if !q.Unverified {
			a.addSlots(l, q)
		}
	}
	if l.refresh != nil {
		a.addSlots(l, nil)
	}
}

// admitWaiting admits the records that wait for word that their sender is a server.
func (a *Assembler) admitWaiting() {
	for l := a.strangers.first; l != nil; {
		next := l.after
		if l.exchange == nil && a.believes(l) {
			a.unindex(l)
			a.admit(l)
			a.index(l)
			l.resize(l.bytes())
		}
		l = next
	}
}

// takeClaim gives a due exchange without a record, whose server's process is unknown, a
// record of an unverified sender: it is shown, and nothing follows from it. Until then it may
// turn out to be of another exchange: of what a transparent proxy asked.
func (a *Assembler) takeClaim(l *lookup) {
	if l.exchange == nil || l.query != nil || l.claim != nil {
		return
	}
	for half := range a.flows.of(l.flow) {
		if half.exchange == nil && half.query != nil && len(half.records) == 1 && half.heapIndex >= 0 && a.fits(half.query, half.from, l) == unknown {
			a.forget(half)
			a.disown(half)
			a.stats.Unverified++
			half.query.Unverified = true
			l.claim = half.query
			return
		}
	}
}

// foreign tells whether a record is refused, and counts it: its query was not seen and its
// sender is no server. Other records are admitted, with their attempts.
func (a *Assembler) foreign(l *lookup) bool {
	if l.exchange != nil {
		return false
	}
	if a.believes(l) {
		a.admit(l)
		return false
	}
	a.refuse(l)
	return true
}

// refuse drops a record that is not believed.
func (a *Assembler) refuse(l *lookup) {
	a.stats.Foreign += uint64(max(1, len(l.records)))
	a.disown(l)
}

// seen tells whether packets of a lookup were observed, its own or those of an attempt.
func (l *lookup) seen() bool {
	if l.exchange != nil {
		return true
	}
	for _, s := range l.slots {
		if len(s.got) > 0 {
			return true
		}
	}
	return false
}

// sameSender tells whether two records are of one process.
func sameSender(x, y *peer.Process) bool {
	return x == y || x != nil && y != nil && x.PID == y.PID && x.UID == y.UID
}
