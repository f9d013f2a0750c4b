package assemble

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Bounds of what is remembered of servers: pods that restart for ever must not
// grow the tables.
const (
	maxPIDs  = 64
	maxZones = 256
	maxAddrs = 4096
)

// recently is for how long a server that wrote a record of a zone is known to do so.
const recently = int64(10 * time.Minute)

// servers is what is known of the servers that were observed.
type servers struct {
	at map[trace.Place]*server
	// Addresses, translated or not, whose server's records arrive, and the places in
	// which the recorded queries had arrived.
	recorded map[netip.AddrPort]map[trace.Place]*recorder
	// Places in which recorded queries arrived.
	recorders map[trace.Place]bool
	// Servers by their process, and by their cgroup where that is all that is known.
	processes map[int]*process
	cgroups   map[string]*process
}

// server is the servers in one place.
type server struct {
	pids   map[int]bool
	anyPID bool                // one answered and its process is not known
	addrs  map[netip.Addr]bool // by which they were asked
}

// recorder is a server that writes records.
type recorder struct {
	zones map[string]int64 // when a query for a name in it was last recorded
}

// identity is what is known of the server of a lookup.
type identity struct {
	place  trace.Place
	placed bool // place is known
	pid    int  // 0: unknown
	addr   netip.AddrPort
}

func newServers() *servers {
	return &servers{at: map[trace.Place]*server{}, recorded: map[netip.AddrPort]map[trace.Place]*recorder{}, recorders: map[trace.Place]bool{},
		processes: map[int]*process{}, cgroups: map[string]*process{}}
}

// learn notes where a response came from, and who read a query; it tells whether it was
// not known who that is.
func (s *servers) learn(ex *trace.Exchange) (news bool) {
	if !ex.Milestones.Response.Left.Seen() && !ex.Milestones.Query.Read.Seen() {
		return false
	}
	place, ok := ex.ServerPlace()
	if !ok {
		return false
	}
	news = s.show(ex, place)
	srv := s.at[place]
	if srv == nil {
		if len(s.at) >= maxAddrs {
			clear(s.at)
		}
		srv = &server{pids: map[int]bool{}, addrs: map[netip.Addr]bool{}}
		s.at[place] = srv
	}
	if addr := translated(ex).Addr(); !srv.addrs[addr] && len(srv.addrs) < maxPIDs {
		srv.addrs[addr] = true
	}
	switch {
	case ex.Server == nil || ex.Server.PID == 0:
		srv.anyPID = true
	case srv.pids[ex.Server.PID]:
	case len(srv.pids) < maxPIDs:
		srv.pids[ex.Server.PID] = true
	default:
		srv.anyPID = true
	}
	return news
}

// sends tells whether who sent a query may be an observed server.
func (s *servers) sends(x *sender) bool {
	if !x.seen {
		return false
	}
	srv := s.at[x.place]
	return srv != nil && (x.pid == 0 || srv.anyPID || srv.pids[x.pid])
}

// isServer tells whether who sent a query is an observed server: its process, or, where
// that is not known, whoever has the address that the server there has.
func (s *servers) isServer(x *sender) bool {
	if !s.sends(x) {
		return false
	}
	srv := s.at[x.place]
	return x.pid != 0 && srv.pids[x.pid] || srv.addrs[x.ip]
}

// records notes that the server of an exchange wrote a record of it.
func (s *servers) records(ex *trace.Exchange, q *trace.Query) {
	place, ok := ex.ServerPlace()
	if !ok {
		return
	}
	if len(s.recorded) >= maxAddrs {
		clear(s.recorded)
	}
	if len(s.recorders) >= maxAddrs {
		clear(s.recorders)
	}
	s.recorders[place] = true
	addrs := serverAddrs(ex)
	for _, addr := range slices.Compact(addrs[:]) {
		places := s.recorded[addr]
		if places == nil || len(places) >= maxPIDs {
			places = map[trace.Place]*recorder{}
			s.recorded[addr] = places
		}
		r := places[place]
		if r == nil || len(r.zones) >= maxZones {
			r = &recorder{zones: map[string]int64{}}
			places[place] = r
		}
		r.zones[q.Zone] = max(r.zones[q.Zone], q.Time.UnixNano())
	}
}

// sent tells whether a server may have sent a query.
func (s *servers) sent(by *identity, x *sender) bool {
	switch {
	case !x.seen:
		return false
	case by.placed:
		return x.place == by.place && (by.pid == 0 || x.pid == 0 || by.pid == x.pid)
	case by.addr.IsValid():
		if places := s.recorded[by.addr]; len(places) > 0 {
			return places[x.place] != nil
		}
		return by.addr.Addr() == x.ip
	}
	return len(s.recorders) == 0 || s.recorders[x.place]
}

// missed tells whether an exchange did not reach the server that it was meant for,
// which is known to record such queries, here. A query that did arrive there and has no
// record proves nothing: the server may sample.
func (s *servers) missed(ex *trace.Exchange, now time.Time) bool {
	switch {
	case ex.Milestones.Query.Arrived != trace.NotSeen, ex.Milestones.Query.Read.Seen(), ex.Milestones.Response.Left != trace.NotSeen:
		return false // it came, or that cannot be seen
	case dropped(ex): // which says more
		return false
	case ex.Incomplete(), ex.Connects(), now.Sub(lastQuery(ex)) < holdServer:
		return false
	}
	// Of the servers behind one address, the translated one is the right one.
	for place, r := range s.recorded[translated(ex)] {
		if place.Node != ex.Node {
			continue
		}
		for zone, at := range r.zones {
			if inZone(ex.QName, zone) && max(at-ex.Time.UnixNano(), ex.Time.UnixNano()-at) <= recently {
				return true
			}
		}
	}
	return false
}

// dropped tells whether an exchange ended with a drop of its query.
func dropped(ex *trace.Exchange) bool {
	drop := ex.LastDrop()
	return drop != nil && drop.Message == trace.MessageQuery
}

// died tells whether the only query of an exchange was dropped before a server had it.
func died(ex *trace.Exchange) bool {
	return ex.Outcome == trace.OutcomeDropped && ex.Transmissions <= 1 && dropped(ex) && !ex.Milestones.Query.Read.Seen()
}

// inZone tells whether a name is in a zone; both are lower case and absolute.
func inZone(name, zone string) bool {
	return zone == "." || name == zone || zone != "" && strings.HasSuffix(name, "."+zone)
}

// serverAddrs returns the server's address as the client used it, and as it was translated
// as far as known: the same again, if it was not.
func serverAddrs(ex *trace.Exchange) [2]netip.AddrPort {
	return [...]netip.AddrPort{netip.AddrPortFrom(ex.ServerIP, ex.ServerPort), translated(ex)}
}

// translated returns the server's address after all translations that are known.
func translated(ex *trace.Exchange) netip.AddrPort {
	if ex.NAT == nil || !ex.NAT.ServerIP.IsValid() {
		return netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)
	}
	port := ex.ServerPort
	if ex.NAT.ServerPort != nil {
		port = *ex.NAT.ServerPort
	}
	return netip.AddrPortFrom(ex.NAT.ServerIP, port)
}

// serverOf returns what is known of the server of a lookup.
func (a *Assembler) serverOf(l *lookup) (id identity) {
	in := l.serverSide()
	switch {
	case in != nil:
		id.place, id.placed = in.ServerPlace()
		id.addr = translated(in)
		if in.Server != nil {
			id.pid = in.Server.PID
		}
	case l.refresh != nil:
		// Its record does not tell the server, but that of the query which set it off.
		for of := range a.flows.of(l.flow) {
			if of.exchange != nil && of.query != nil && sameSender(of.from, l.from) {
				return of.server
			}
		}
	}
	if q := l.query; q != nil && q.ServerIP.IsValid() && !q.ServerIP.IsUnspecified() {
		id.addr = netip.AddrPortFrom(q.ServerIP, q.ServerPort)
	}
	if l.from == nil {
		return id
	}
	id.pid = cmp.Or(id.pid, l.from.PID)
	if p := a.servers.process(l.from); p != nil && !id.placed {
		id.place, id.placed = p.place, true
	}
	return id
}

// fit is how well a record and an exchange of one flow go together.
type fit int

const (
	noFit fit = iota
	mayFit
	fits
)

// fitOf tells whether a record's server is the one that an exchange went to.
func fitOf(ex *trace.Exchange, q *trace.Query) fit {
	if !q.ServerIP.IsValid() || q.ServerIP.IsUnspecified() {
		return fits // it does not say
	}
	recorded := netip.AddrPortFrom(q.ServerIP, q.ServerPort)
	if recorded == translated(ex) || recorded == netip.AddrPortFrom(ex.ServerIP, ex.ServerPort) {
		return fits
	}
	// A Service that was not seen to be translated; but what the server itself sent, to
	// its upstream, is not what it was asked.
	if ex.NAT == nil && ex.ClientIP != q.ServerIP {
		return mayFit
	}
	return noFit
}
