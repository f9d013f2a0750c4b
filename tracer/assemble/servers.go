package assemble

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/trace"
)

// Bounds of what is remembered of servers: pods that restart for ever must not
// grow the tables.
const (
	maxPIDs  = 64
	maxAddrs = 4096
)

// servers is what is known of the servers on this node.
type servers struct {
	byNetNS map[uint32]*server
	// Addresses, translated or not, whose server's records arrive, and the
	// namespaces in which the recorded queries had arrived.
	recorded map[netip.AddrPort]map[uint32]bool
	// Namespaces in which recorded queries arrived.
	recorders map[uint32]bool
}

type server struct {
	pids   map[int]bool
	anyPID bool // it answered and its process is not known
}

func newServers() *servers {
	return &servers{byNetNS: map[uint32]*server{}, recorded: map[netip.AddrPort]map[uint32]bool{}, recorders: map[uint32]bool{}}
}

// learn notes where a response came from.
func (s *servers) learn(ex *trace.Exchange) {
	for i := range ex.Path {
		at := &ex.Path[i]
		if at.Message != trace.MessageResponse {
			continue
		}
		if at.Direction != trace.DirectionTX {
			return // it came from beyond the node
		}
		srv := s.byNetNS[at.NetNS]
		if srv == nil {
			if len(s.byNetNS) >= maxAddrs {
				clear(s.byNetNS)
			}
			srv = &server{pids: map[int]bool{}}
			s.byNetNS[at.NetNS] = srv
		}
		switch {
		case ex.Server == nil || ex.Server.PID == 0:
			srv.anyPID = true
		case len(srv.pids) < maxPIDs:
			srv.pids[ex.Server.PID] = true
		default:
			srv.anyPID = true
		}
		return
	}
}

// sends tells whether the client of an exchange may be an observed server.
func (s *servers) sends(ex *trace.Exchange) bool {
	if len(ex.Path) == 0 || ex.Path[0].Direction != trace.DirectionTX {
		return false
	}
	srv := s.byNetNS[ex.Path[0].NetNS]
	if srv == nil {
		return false
	}
	if ex.Client == nil || ex.Client.PID == 0 || srv.anyPID {
		return true
	}
	return srv.pids[ex.Client.PID]
}

// records notes that the server of an exchange wrote a record of it.
func (s *servers) records(ex *trace.Exchange) {
	netns, ok := arrivedAt(ex)
	if !ok {
		return
	}
	if len(s.recorded) >= maxAddrs {
		clear(s.recorded)
	}
	if len(s.recorders) >= maxAddrs {
		clear(s.recorders)
	}
	s.recorders[netns] = true
	for _, addr := range serverAddrs(ex) {
		places := s.recorded[addr]
		if places == nil || len(places) >= maxPIDs {
			places = map[uint32]bool{}
			s.recorded[addr] = places
		}
		places[netns] = true
	}
}

// recordsAt tells whether a server in a namespace keeps records.
func (s *servers) recordsAt(netns uint32) bool { return s.recorders[netns] }

// missed tells whether an exchange did not reach the server that it was meant
// for, which records its queries. A query that did arrive there and has no record
// proves nothing: the server may sample, or record some zones only.
func (s *servers) missed(ex *trace.Exchange) bool {
	if len(s.recorded) == 0 {
		return false
	}
	addrs := serverAddrs(ex)
	if ex.Incomplete() {
		return false // that it was not seen to arrive proves nothing
	}
	// Of the servers behind one address, the translated one is the right one.
	places := s.recorded[addrs[len(addrs)-1]]
	if len(places) == 0 {
		return false
	}
	for i := range ex.Path {
		if at := &ex.Path[i]; at.Message == trace.MessageResponse || at.Direction == trace.DirectionRX && places[at.NetNS] {
			return false
		}
	}
	return true
}

// serverAddrs returns the server's address as the client used it and, if known,
// as it was translated.
func serverAddrs(ex *trace.Exchange) []netip.AddrPort {
	addrs := []netip.AddrPort{netip.AddrPortFrom(ex.ServerIP, ex.ServerPort)}
	if ex.NAT != nil && ex.NAT.ServerPort != nil {
		addrs = append(addrs, netip.AddrPortFrom(ex.NAT.ServerIP, *ex.NAT.ServerPort))
	}
	return addrs
}

// arrivedAt returns the namespace in which the query was last received.
func arrivedAt(ex *trace.Exchange) (uint32, bool) {
	for i := len(ex.Path) - 1; i >= 0; i-- {
		if s := &ex.Path[i]; s.Message == trace.MessageQuery && s.Direction == trace.DirectionRX {
			return s.NetNS, true
		}
	}
	return 0, false
}
