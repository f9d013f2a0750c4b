// Package listener names the servers of queries that were delivered and never answered.
// Packets prove their sender, but not a silent receiver; its socket does: it is open in the
// namespace in which the query arrived, with the address that it was for.
package listener

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// A look reads all open files of the node, while packets wait in their rings. It
// takes at most this share of the time.
const (
	minEvery  = time.Second
	restShare = 100 // times as long as a look took
)

// maxSockets bounds what a look keeps: a node has some hundred.
const maxSockets = 1 << 16

// Names names cgroups by the ids that sockets carry ([cgroup.Names]).
//
// [cgroup.Names]: https://pkg.go.dev/github.com/dnstrace/dnstrace/tracer/cgroup#Names
type Names interface {
	Cgroup(id uint64) (path, container string)
}

// Sockets knows the UDP sockets of the node. Its methods are safe for concurrent use.
type Sockets struct {
	mu     sync.Mutex
	coll   *ebpf.Collection
	iter   *link.Iter
	names  Names
	look   func() (map[place][]socket, error)
	now    func() time.Time
	found  map[place][]socket
	looked time.Time // when the last look began
	next   time.Time // no look before
}

// place is where a socket takes datagrams.
type place struct {
	netns uint32
	port  uint16
}

// socket is a UDP socket without a peer, as one process has it open.
type socket struct {
	addr    netip.Addr // unspecified: any
	v6only  bool
	pid     int
	comm    string
	cgroup  uint64
	started time.Time // the process
}

// Open loads the iterator, which takes CAP_BPF and CAP_PERFMON; reading it takes none since
// Linux 5.19. Before that, and where the iterator cannot be loaded, the error says what is
// lost. The caller owns the result and must close it; a nil one names nothing.
func Open(names Names) (*Sockets, error) {
	if !Supported() {
		return nil, errors.New("servers that never answer are shown without their process: Linux 5.19 or later lets a tracer without privileges look for them")
	}
	coll, err := loadListeners()
	if err != nil {
		return nil, fmt.Errorf("servers that never answer are shown without their process: %w", err)
	}
	iter, err := link.AttachIter(link.IterOptions{Program: coll.Programs[bpf.ListenersProgListeners]})
	if err != nil {
		coll.Close()
		return nil, fmt.Errorf("servers that never answer are shown without their process: attach the iterator: %w", err)
	}
	s := &Sockets{coll: coll, iter: iter, names: names, now: time.Now}
	s.look = s.readAll
	return s, nil
}

func loadListeners() (*ebpf.Collection, error) {
	spec, err := bpf.LoadListeners()
	if err != nil {
		return nil, fmt.Errorf("read the built-in eBPF object: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the iterator: %w", err)
	}
	return coll, nil
}

// Close frees everything.
func (s *Sockets) Close() error {
	if s == nil {
		return nil
	}
	err := s.iter.Close()
	s.coll.Close()
	return err
}

// Exchange sets the server of an exchange whose process is unknown: the one whose socket the
// query reached. It sets none where the query was not seen to arrive, where several
// processes have such a socket, or where the process is younger than the query.
func (s *Sockets) Exchange(ex *trace.Exchange) {
	if s == nil || ex.Server != nil && ex.Server.PID != 0 || ex.Outcome == trace.OutcomeAnswered || ex.Protocol != "udp" {
		return
	}
	arrived, ok := arrival(ex)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := ex.Time.Add(arrived.Offset.Duration())
	if s.looked.Before(at) && !s.renew() {
		return
	}
	e, ok := s.serverAt(arrived.NetNS, arrived.Dst, at)
	switch {
	case !ok:
	case ex.Server == nil:
		e.Node = ex.Node
		ex.Server = &e
	case ex.Server.Cgroup == e.Cgroup: // the cgroup of the socket
		named := *ex.Server // which other records have, too
		named.Process, named.PID = e.Process, e.PID
		ex.Server = &named
	}
}

// Bound returns the network namespaces, by their inodes, in which a process takes datagrams
// at a port. A nil Sockets knows none.
func (s *Sockets) Bound(pid int, port uint16) []uint32 {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.bound(pid, port); len(found) > 0 || !s.renew() {
		return found
	}
	return s.bound(pid, port)
}

// Holds tells whether a process takes datagrams at a port.
func (s *Sockets) Holds(pid int, port uint16) bool {
	return pid != 0 && len(s.Bound(pid, port)) > 0
}

func (s *Sockets) bound(pid int, port uint16) []uint32 {
	var found []uint32
	for at, open := range s.found {
		if at.port == port && slices.ContainsFunc(open, func(c socket) bool { return c.pid == pid }) {
			found = append(found, at.netns)
		}
	}
	slices.Sort(found)
	return found
}

// arrival returns where the query came to its server; false where that was not seen,
// or where it came to no socket.
func arrival(ex *trace.Exchange) (trace.Sighting, bool) {
	d := ex.LastDrop()
	switch {
	case d == nil:
		return ex.Sighting(ex.Milestones.Query.Arrived)
	case d.Description != "receive buffer full":
		return trace.Sighting{}, false
	}
	last, seen := ex.Last(trace.MessageQuery, d.Offset)
	return last, seen && last.Place() == d.Place()
}

// renew looks again, unless it is too early or in vain.
func (s *Sockets) renew() bool {
	begin := s.now()
	if begin.Before(s.next) {
		return false
	}
	found, err := s.look()
	end := s.now()
	s.next = end.Add(max(minEvery, end.Sub(begin)*restShare))
	if err != nil {
		return false
	}
	s.found, s.looked = found, begin
	return true
}

// serverAt returns the process that takes datagrams for an address; false if there is none,
// or more than one. Processes of one cgroup that share sockets are known by the cgroup.
func (s *Sockets) serverAt(netns uint32, dst netip.AddrPort, at time.Time) (e trace.Endpoint, ok bool) {
	var takers []socket
	for _, exact := range []bool{true, false} { // the kernel prefers a socket of that address
		for _, c := range s.found[place{netns, dst.Port()}] {
			if c.takes(dst.Addr(), exact) {
				takers = append(takers, c)
			}
		}
		if len(takers) > 0 {
			break
		}
	}
	if len(takers) == 0 {
		return e, false
	}
	first := takers[0]
	oneProcess, oneCgroup := true, true
	for _, c := range takers {
		if c.started.After(at) {
			return e, false
		}
		oneProcess = oneProcess && c.pid == first.pid
		oneCgroup = oneCgroup && c.cgroup == first.cgroup
	}
	if oneProcess {
		e.Process, e.PID = first.comm, first.pid
	}
	if oneCgroup && s.names != nil {
		e.Cgroup, e.Container = s.names.Cgroup(first.cgroup)
	}
	return e, e.PID != 0 || e.Cgroup != ""
}

func (c *socket) takes(dst netip.Addr, exact bool) bool {
	if exact {
		return c.addr == dst
	}
	return c.addr.IsUnspecified() && (c.addr.Is4() == dst.Is4() || c.addr.Is6() && !c.v6only)
}

// readAll reads the iterator once.
func (s *Sockets) readAll() (map[place][]socket, error) {
	r, err := s.iter.Open()
	if err != nil {
		return nil, fmt.Errorf("open the iterator: %w", err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxSockets*int64(listeningBytes)))
	if err != nil {
		return nil, fmt.Errorf("read the iterator: %w", err)
	}
	return parse(raw, s.now().Add(-time.Duration(capture.Now()))), nil
}

// Supported tells whether this kernel lets a process without privileges read an
// iterator that was attached with them: kernel/bpf/syscall.c asks for privileges to
// make programs and maps only, since Linux 5.19.
func Supported() bool {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 19
}

// Probe says whether servers that never answer are named.
func Probe() capture.Finding {
	f := capture.Finding{What: "silent servers", OK: true, Detail: "a server that never answers is known by its socket",
		Lost: "a server that never answers is shown without its process", Remedy: "Linux 5.19 or later"}
	if !Supported() {
		f.OK, f.Detail = false, "this kernel lets nobody without privileges look for sockets"
		return f
	}
	s, err := Open(nil)
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		f.OK, f.Detail, f.Remedy = false, err.Error(), "see the lines above"
	}
	return f
}
