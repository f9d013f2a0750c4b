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
	// Addresses, translated or not, whose server's records arrive.
	recorded map[netip.AddrPort]bool
	// Namespaces in which queries arrived: only from there are queries sent
	// on behalf of another.
	arrivals map[uint32]bool
}

type server struct {
	pids   map[int]bool
	anyPID bool // it answered and its process is not known
}

func newServers() *servers {
	return &servers{byNetNS: map[uint32]*server{}, recorded: map[netip.AddrPort]bool{}, arrivals: map[uint32]bool{}}
}

// learn notes where a query arrived, and where its response came from.
func (s *servers) learn(ex *trace.Exchange) {
	if netns, ok := arrivedAt(ex); ok {
		if len(s.arrivals) >= maxAddrs {
			clear(s.arrivals)
		}
		s.arrivals[netns] = true
	}
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
	if len(s.recorded) >= maxAddrs {
		clear(s.recorded)
	}
	for _, addr := range serverAddrs(ex) {
		s.recorded[addr] = true
	}
}

// recordExpected tells whether the server that the exchange was meant for keeps
// records.
func (s *servers) recordExpected(ex *trace.Exchange) bool {
	for _, addr := range serverAddrs(ex) {
		if s.recorded[addr] {
			return true
		}
	}
	return false
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
