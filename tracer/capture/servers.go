package capture

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/dnstrace/dnstrace/bpf"
)

// Ports tells which ends of packets are DNS servers.
type Ports interface {
	// IsServer reports whether an address and port are a DNS server's: the port is one
	// that is observed, or it was learned that a translation of such a port leads there.
	// Safe for concurrent use.
	IsServer(netip.AddrPort) bool
}

// serversMap is the section that holds what is known of servers (bpf/servers.h).
const (
	serversMap   = ".data.servers"
	portClasses  = len(bpf.DnstraceKnownServers{}.Classes)
	knownServers = len(bpf.DnstraceKnownServers{}.Servers)
	knownProbes  = 8
	maxSockets   = len(bpf.DnstraceKnownServers{}.Sockets)
	keyBytes     = unsafe.Sizeof(bpf.DnstraceServerKey{})
	serversAt    = unsafe.Offsetof(bpf.DnstraceKnownServers{}.Servers)
	socketsAt    = unsafe.Offsetof(bpf.DnstraceKnownServers{}.Sockets)
	socketBytes  = unsafe.Sizeof(bpf.DnstraceKnownServers{}.Sockets) / uintptr(maxSockets)
)

// keepServer is how long a server is known after the last proof: addresses of pods are
// reused. The programs keep what they learn as long.
const keepServer = int64(10 * time.Minute)

// socket is a port that a server binds in a namespace.
type socket struct {
	netns uint32
	port  uint16
}

// servers are those whose address and port were learned, and tells the programs of them.
// Its methods are safe for concurrent use.
type servers struct {
	ports []uint16 // that are observed, whatever the address
	write func(b []byte, at uintptr)
	now   func() int64

	mu      sync.RWMutex
	proven  map[netip.AddrPort]int64    // ns of the monotonic clock
	listed  map[netip.AddrPort]struct{} // for as long as Kubernetes lists them
	slots   map[netip.AddrPort]int      // where the programs have it
	used    [knownServers]bool
	sockets map[socket]int64
	looked  int64 // when what is old was forgotten
}

func newServers(ports []uint16, write func(b []byte, at uintptr)) *servers {
	return &servers{ports: ports, write: write, now: Now, proven: map[netip.AddrPort]int64{},
		listed: map[netip.AddrPort]struct{}{}, slots: map[netip.AddrPort]int{}, sockets: map[socket]int64{}}
}

// writer returns a function that writes into the section that the programs read.
func writer(m *ebpf.Memory) func([]byte, uintptr) {
	return func(b []byte, at uintptr) {
		// In bounds by construction.
		_, _ = m.WriteAt(b, int64(at))
	}
}

// IsServer implements Ports.
func (s *servers) IsServer(a netip.AddrPort) bool {
	if slices.Contains(s.ports, a.Port()) {
		return true
	}
	a = unmapped(a)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if _, ok := s.listed[a]; ok {
		return true
	}
	at, ok := s.proven[a]
	return ok && s.now()-at < keepServer
}

// saw notes that the programs say of an end of a packet that it is a server.
func (s *servers) saw(a netip.AddrPort, at int64) {
	if !slices.Contains(s.ports, a.Port()) {
		s.prove(a, at)
	}
}

// prove notes that a server was there at a time.
func (s *servers) prove(a netip.AddrPort, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.proven) >= knownServers {
		s.forget()
	}
	if _, ok := s.proven[a]; !ok && len(s.proven) >= knownServers {
		return
	}
	s.proven[a] = at
}

// list replaces what Kubernetes lists.
func (s *servers) list(all []netip.AddrPort) {
	next, order := make(map[netip.AddrPort]struct{}, len(all)), make([]netip.AddrPort, 0, len(all))
	for _, a := range all {
		if a = unmapped(a); a.Port() != 0 && !slices.Contains(s.ports, a.Port()) {
			next[a], order = struct{}{}, append(order, a)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.listed
	s.listed = next
	for a := range before {
		if _, ok := next[a]; !ok {
			s.untell(a)
		}
	}
	for _, a := range order {
		s.tell(a)
	}
}

// maxOfNetns bounds the ports of one namespace: a pod that opens many and names them all
// takes no room from others.
const maxOfNetns = 8

// bind records that a server takes queries at a port in a namespace, at any address there.
func (s *servers) bind(netns uint32, port uint16) {
	if netns == 0 || slices.Contains(s.ports, port) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.sockets[socket{netns, port}]
	if !known && (len(s.sockets) >= maxSockets || s.portsOf(netns) >= maxOfNetns) {
		return
	}
	s.sockets[socket{netns, port}] = s.now()
	if !known {
		s.writeSockets()
	}
}

func (s *servers) portsOf(netns uint32) (n int) {
	for k := range s.sockets {
		if k.netns == netns {
			n++
		}
	}
	return n
}

// renew forgets what nothing has proven for some time.
func (s *servers) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now-s.looked >= keepServer/10 {
		s.looked = now
		s.forget()
	}
}

func (s *servers) forget() {
	now := s.now()
	for a, at := range s.proven {
		if now-at >= keepServer {
			delete(s.proven, a)
		}
	}
	before := len(s.sockets)
	maps.DeleteFunc(s.sockets, func(_ socket, at int64) bool { return now-at >= keepServer })
	if len(s.sockets) != before {
		s.writeSockets()
	}
}

// tell adds a server to the map of the programs. One that finds no free place among the few
// that they look at stays unknown to them until they learn it from conntrack.
func (s *servers) tell(a netip.AddrPort) {
	if _, ok := s.slots[a]; ok {
		return
	}
	key := serverKey(a)
	first := hashOf(&key)
	for i := range uint32(knownProbes) {
		slot := int((first + i) % uint32(knownServers))
		if s.used[slot] {
			continue
		}
		s.used[slot], s.slots[a] = true, slot
		at := serversAt + uintptr(slot)*keyBytes
		// The port last: until then the place is empty to who reads it meanwhile.
		s.write(bytesOf(&key)[:unsafe.Offsetof(key.Port)], at)
		s.write(binary.NativeEndian.AppendUint32(nil, key.Port), at+unsafe.Offsetof(key.Port))
		s.write([]byte{1}, uintptr(int(a.Port())%portClasses))
		return
	}
}

func (s *servers) untell(a netip.AddrPort) {
	slot, ok := s.slots[a]
	if !ok {
		return
	}
	s.used[slot] = false
	delete(s.slots, a)
	s.write(make([]byte, 4), serversAt+uintptr(slot)*keyBytes+unsafe.Offsetof(bpf.DnstraceServerKey{}.Port))
}

// writeSockets lets the programs know the sockets.
func (s *servers) writeSockets() {
	b := make([]byte, 0, uintptr(maxSockets)*socketBytes)
	for k := range s.sockets {
		b = binary.NativeEndian.AppendUint32(b, k.netns)
		b = binary.NativeEndian.AppendUint16(b, k.port)
		b = append(b, 0, 0)
		s.write([]byte{1}, uintptr(int(k.port)%portClasses))
	}
	s.write(b[:cap(b)], socketsAt)
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func serverKey(a netip.AddrPort) bpf.DnstraceServerKey {
	b := a.Addr().As16()
	key := bpf.DnstraceServerKey{Port: uint32(a.Port())}
	key.Addr = [2]uint64{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}
	return key
}

// hashOf returns where the programs begin to look for a server (bpf/servers.h).
func hashOf(key *bpf.DnstraceServerKey) uint32 {
	x := uint32(key.Addr[1]^key.Addr[1]>>32) ^ key.Port
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	x *= 0x846ca68b
	return x ^ x>>16
}

// Ports returns what tells which ends of packets are servers.
func (s *Source) Ports() Ports { return s.servers }

// LearnSocket says that a DNS server has bound a port in a network namespace, by its
// inode: the programs learn the address from what it sends, and packets from and to that
// are seen, for ten minutes after the last call. Safe for concurrent use.
func (s *Source) LearnSocket(netns uint32, port uint16) { s.servers.bind(netns, port) }

// ListServers says where all DNS servers of the cluster are, in place of the list before:
// packets from and to them are seen for as long. Safe for concurrent use.
func (s *Source) ListServers(all []netip.AddrPort) { s.servers.list(all) }
