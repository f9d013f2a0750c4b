package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// netnsDir is where ip-netns(8) and container runtimes keep named namespaces.
const netnsDir = "/run/netns"

// refreshEvery bounds how often netnsDir is read because of an unknown namespace: a node
// with a new pod each second must not list it for every packet.
const refreshEvery = 100 * time.Millisecond

// namespaces names network namespaces by inode. A namespace that only processes
// hold has no name.
type namespaces struct {
	dir     string
	host    uint32 // the node's own; 0: we may not look
	names   map[uint32]string
	gone    map[uint32]goneName
	round   int       // how often renew was called
	since   int       // the round in which dir had last changed
	early   bool      // a file was read that no namespace was mounted on
	changed time.Time // when dir was, as far as it was read
	racy    bool      // it may have changed since without a later time
	read    time.Time
	now     func() time.Time
	come    *arrivals // nil: dir is not there, or cannot be watched
}

// goneName is the name of a namespace that went.
type goneName struct {
	name  string
	round int // in which that was noticed
}

func newNamespaces(dir string) *namespaces {
	n := &namespaces{dir: dir, names: map[uint32]string{}, gone: map[uint32]goneName{}, now: time.Now}
	// Now, since it takes CAP_SYS_PTRACE, which may be given up. Unknown is 0.
	n.host, _ = HostNetNS()
	return n
}

// nodePIDNS is the inode of the node's own PID namespace (PROC_PID_INIT_INO in
// include/linux/proc_ns.h).
const nodePIDNS = 0xEFFFFFFC

// HostNetNS returns the inode of the node's own network namespace, in which its PID
// 1 is. A container's PID 1 is in that of the container.
func HostNetNS() (uint32, error) {
	inode, err := inodeOf("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	if inode != nodePIDNS {
		return 0, errors.New("PID 1 is not the node's: this is a container")
	}
	return inodeOf("/proc/1/ns/net")
}

// In how many rounds of packets, at least 20 ms apart, dir is read after it changed.
const (
	// The last packets of a removed namespace come within these. Its inode is not free
	// before: the kernel waits for readers first (cleanup_net).
	goneRounds = 2
	// A namespace is mounted on its file right after the file was created. A file that a
	// crash left behind stays without.
	earlyRounds = 4
	// How often it is tried to watch dir, which is made with its first namespace.
	watchRounds = 50
)

// tick is the resolution of the times of changes: before Linux 6.13 they are those of the
// last timer interrupt, of which there are at least 100 a second.
const tick = 10 * time.Millisecond

// renew is called before each round of packets. It forgets names if namespaces came or
// went: the kernel reuses the inode of a removed one for the next.
func (n *namespaces) renew() {
	info, err := os.Stat(n.dir)
	if err != nil {
		return
	}
	n.round++
	if n.come == nil && n.round%watchRounds == 1 {
		n.come = watchArrivals(n.dir)
	}
	switch changed := !info.ModTime().Equal(n.changed); {
	case changed || n.racy:
		if n.refresh() || changed {
			n.since = n.round
		}
		n.changed, n.racy = info.ModTime(), n.read.Sub(info.ModTime()) < tick
	case n.early && n.round-n.since <= earlyRounds:
		n.refresh()
	}
	n.addArrivals()
	maps.DeleteFunc(n.gone, func(_ uint32, g goneName) bool { return n.round-g.round >= goneRounds })
}

// addArrivals gives their names to namespaces that came and went since the last round.
func (n *namespaces) addArrivals() {
	if n.come == nil {
		return
	}
	for inode, name := range n.come.take() {
		if _, there := n.names[inode]; !there {
			n.gone[inode] = goneName{name, n.round}
		}
	}
}

func (n *namespaces) close() error {
	if n.come == nil {
		return nil
	}
	return n.come.close()
}

func (n *namespaces) name(inode uint32) string {
	switch inode {
	case 0:
		return ""
	case n.host:
		return hostName
	}
	if name, ok := n.names[inode]; ok {
		return name
	}
	if now := n.now(); now.Sub(n.read) >= refreshEvery {
		n.refresh()
	}
	if name, ok := n.names[inode]; ok {
		return name
	}
	return n.gone[inode].name
}

// refresh reads dir, and reports whether a name came or went.
func (n *namespaces) refresh() (changed bool) {
	before := n.names
	n.read = n.now()
	n.names, n.early = map[uint32]string{}, false
	n.readDir()
	for inode, name := range before {
		if n.names[inode] != name {
			n.gone[inode] = goneName{name, n.round}
		}
	}
	return !maps.Equal(before, n.names)
}

func (n *namespaces) readDir() {
	dir, err := stat(n.dir)
	if err != nil {
		return
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		file, err := stat(filepath.Join(n.dir, e.Name()))
		if err != nil {
			continue // gone meanwhile
		}
		n.names[uint32(file.Ino)] = e.Name()
		n.early = n.early || file.Dev == dir.Dev
	}
}

func inodeOf(path string) (uint32, error) {
	st, err := stat(path)
	return uint32(st.Ino), err
}

func stat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return st, fmt.Errorf("%s: %w", path, err)
	}
	return st, nil
}

// dropReasons reads the reasons from the running kernel, because the numbers
// differ from kernel to kernel. Before Linux 5.17 there is none and the table is
// empty.
func dropReasons(spec *btf.Spec) map[uint32]string {
	reasons := map[uint32]string{}
	for _, list := range dropreason.Enums {
		var enum *btf.Enum
		if err := spec.TypeByName(list, &enum); err != nil {
			continue
		}
		for _, v := range enum.Values {
			if name := dropreason.Name(v.Name); !slices.Contains(dropreason.Unspecified, name) {
				reasons[uint32(v.Value)] = name
			}
		}
	}
	return reasons
}

// symbols names kernel addresses. Drops come from few places, so each is looked
// up once instead of keeping the kernel's 200,000 symbols in memory.
type symbols struct {
	file  *os.File // nil: it cannot be read
	cache map[uint64]string
}

// newSymbols opens the file at once: the privileges at that time decide whether it shows
// addresses, and they may be dropped later.
func newSymbols(path string) *symbols {
	s := &symbols{cache: map[uint64]string{}}
	if f, err := os.Open(path); err == nil {
		s.file = f
	}
	return s
}

func (s *symbols) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// names returns, for each address, the function that contains it, or "" where
// kernel.kptr_restrict hides the addresses.
func (s *symbols) names(addrs []uint64) []string {
	var unknown []uint64
	for _, addr := range addrs {
		if _, ok := s.cache[addr]; !ok {
			unknown = append(unknown, addr)
		}
	}
	if len(unknown) > 0 {
		for i, name := range s.lookup(unknown) {
			s.cache[unknown[i]] = name
		}
	}
	found := make([]string, len(addrs))
	for i, addr := range addrs {
		found[i] = s.cache[addr]
	}
	return found
}

// lookup reads the file once for all addresses: it has some 200,000 lines.
func (s *symbols) lookup(addrs []uint64) []string {
	names := make([]string, len(addrs))
	if s.file == nil {
		return names
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return names
	}
	// Only the next symbol shows whether one was the last before an address: only then its
	// name is worth a string.
	best, last, name := make([]uint64, len(addrs)), uint64(0), []byte(nil)
	until := func(next uint64) {
		for i, addr := range addrs {
			if last <= addr && last > best[i] && (next > addr || next < last) {
				best[i], names[i] = last, functionName(name)
			}
		}
	}
	scanner := bufio.NewScanner(s.file)
	for scanner.Scan() {
		at, rest := leadingHex(scanner.Bytes())
		// Text symbols only; modules follow the kernel, so there is no order.
		if at == 0 || len(rest) < 4 || rest[0] != ' ' || rest[1]|0x20 != 't' {
			continue
		}
		until(at)
		last, name = at, append(name[:0], rest[3:]...)
	}
	until(0)
	return names
}

// functionName returns the name of a symbol without the module that it is of.
// Compilers split functions: nft_do_chain.cold is nft_do_chain.
func functionName(symbol []byte) string {
	symbol, _, _ = bytes.Cut(symbol, []byte("\t"))
	symbol, _, _ = bytes.Cut(symbol, []byte("."))
	return string(symbol)
}

// leadingHex reads the number that a line begins with, in lower case as the kernel
// writes it, and returns what follows.
func leadingHex(line []byte) (n uint64, rest []byte) {
	for i, c := range line {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return n, line[i:]
		}
	}
	return n, nil
}
