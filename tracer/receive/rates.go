package receive

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dnstrace/dnstrace/tracer/peer"
)

// How many bytes of records a second are taken, and at once. A record has some 1 kB.
const (
	// Of a process that packets show as a server: 32,000 lookups a second.
	rateServer, burstServer = 32 << 20, 32 << 20
	// Of others: a CoreDNS that has just started, until its first packets are through, 0.3 s
	// later; and any other process that can reach the socket.
	rateOther, burstOther = 1 << 20, 4 << 20
	// Of all others together, so that many senders are not more than a few.
	rateOthers, burstOthers = 4 << 20, 8 << 20
)

const (
	// maxSenders bounds each table of senders. A node has some servers.
	maxSenders = 1024
	// keepSender is how long a process id is taken for the same process without a look, and
	// keepEnded if that process has ended meanwhile: some 30,000 others start before it is
	// reused.
	keepSender = 500 * time.Millisecond
	keepEnded  = 5 * time.Second
	// sweepEvery is how often the tables are swept: each is looked through.
	sweepEvery = time.Second
	// keepServer is how long a server is known after the last packet that showed it.
	keepServer = 10 * time.Minute
)

// group is the unit of rate limits for senders that are no server: a process gains nothing by
// starting others.
type group struct {
	uid    uint32
	cgroup string // or the container
	pid    int    // where the cgroup is unknown
}

// senders limits the rate of each sender. Its methods are safe for concurrent use.
type senders struct {
	now func() time.Time
	of  func(pid int, uid uint32) peer.Process

	mu       sync.Mutex
	known    map[int]knownSender // by process id
	byPID    map[int]*server
	byCgroup map[string]*server // those of which packets do not tell the process
	groups   map[group]*rate.Limiter
	others   *rate.Limiter
	swept    time.Time
}

type knownSender struct {
	peer.Process
	at time.Time
}

type server struct {
	limit *rate.Limiter
	shown time.Time
}

func newSenders() *senders {
	return &senders{now: time.Now, of: peer.Of, known: map[int]knownSender{}, byPID: map[int]*server{}, byCgroup: map[string]*server{},
		groups: map[group]*rate.Limiter{}, others: rate.NewLimiter(rateOthers, burstOthers)}
}

// shows records that packets show a process as a server; pid is 0 where only its cgroup is
// known.
func (s *senders) shows(pid int, cgroup string) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	switch {
	case pid != 0:
		show(s.byPID, pid, now)
	case cgroup != "":
		show(s.byCgroup, cgroup, now)
	}
}

func show[K comparable](servers map[K]*server, key K, now time.Time) {
	if known := servers[key]; known != nil {
		known.shown = now
	} else if len(servers) < maxSenders {
		servers[key] = &server{limit: rate.NewLimiter(rateServer, burstServer), shown: now}
	}
}

// sweep drops from time to time the servers that were not seen for long, and the groups
// whose burst is full again.
func (s *senders) sweep(now time.Time) {
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	maps.DeleteFunc(s.groups, func(_ group, l *rate.Limiter) bool { return l.TokensAt(now) >= burstOther })
	maps.DeleteFunc(s.byPID, func(_ int, known *server) bool { return now.Sub(known.shown) > keepServer })
	maps.DeleteFunc(s.byCgroup, func(_ string, known *server) bool { return now.Sub(known.shown) > keepServer })
}

// take returns who sent a datagram; false if he has sent too much.
func (s *senders) take(from origin, bytes int) (peer.Process, bool) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	who := s.who(from, now)
	if known := s.server(who); known != nil && now.Sub(known.shown) <= keepServer {
		return who, known.limit.AllowN(now, bytes)
	}
	// Its own share first: what it has not is not taken from the others'.
	return who, s.groupOf(who).AllowN(now, bytes) && s.others.AllowN(now, bytes)
}

// server returns the server that a sender is; nil: none.
func (s *senders) server(who peer.Process) *server {
	if known := s.byPID[who.PID]; known != nil && !who.After(known.shown) {
		return known
	}
	for cgroup, known := range s.byCgroup {
		if who.In(cgroup) {
			return known
		}
	}
	return nil
}

func (s *senders) who(from origin, now time.Time) peer.Process {
	known, same := s.known[from.pid]
	same = same && known.UID == from.uid
	if same && now.Sub(known.at) < keepSender {
		return known.Process
	}
	if len(s.known) >= maxSenders {
		clear(s.known)
	}
	who := s.of(from.pid, from.uid)
	if same && who.Ended && now.Sub(known.at) < keepEnded {
		return known.Process
	}
	s.known[from.pid] = knownSender{who, now}
	return who
}

func (s *senders) groupOf(who peer.Process) *rate.Limiter {
	g := group{uid: who.UID, cgroup: who.Container}
	if g.cgroup == "" {
		g.cgroup = who.Cgroup
	}
	if g.cgroup == "" {
		g.pid = who.PID
	}
	limit := s.groups[g]
	switch {
	case limit != nil:
	case len(s.groups) >= maxSenders:
		return s.others
	default:
		limit = rate.NewLimiter(rateOther, burstOther)
		s.groups[g] = limit
	}
	return limit
}
