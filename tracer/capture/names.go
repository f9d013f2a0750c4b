package capture

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf/btf"
)

// netnsDir is where ip-netns(8) and container runtimes keep named namespaces.
const netnsDir = "/run/netns"

// refreshEvery bounds how often an unknown namespace makes us read netnsDir: a
// node with a pod a second must not list it for every packet.
const refreshEvery = 100 * time.Millisecond

// namespaces names network namespaces by inode. A namespace that only processes
// hold has no name.
type namespaces struct {
	dir   string
	names map[uint32]string
	read  time.Time
	now   func() time.Time
}

func newNamespaces(dir string) *namespaces {
	return &namespaces{dir: dir, names: map[uint32]string{}, now: time.Now}
}

func (n *namespaces) name(inode uint32) string {
	if inode == 0 {
		return ""
	}
	if name, ok := n.names[inode]; ok {
		return name
	}
	if now := n.now(); now.Sub(n.read) >= refreshEvery {
		n.read = now
		n.refresh()
	}
	return n.names[inode]
}

func (n *namespaces) refresh() {
	clear(n.names)
	// The node's own: what PID 1 of this PID namespace is in, if we may look.
	if inode, err := inodeOf("/proc/1/ns/net"); err == nil {
		n.names[inode] = "host"
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if inode, err := inodeOf(filepath.Join(n.dir, e.Name())); err == nil {
			n.names[inode] = e.Name()
		}
	}
}

func inodeOf(path string) (uint32, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: no inode", path)
	}
	return uint32(st.Ino), nil
}

// reasonEnums are the kernel's lists of reasons: the core's (include/net/
// dropreason-core.h) and those of subsystems (include/net/dropreason.h), which
// carry the subsystem's number in their upper half. Queueing disciplines have
// their own since Linux 7.2.
var reasonEnums = []string{"skb_drop_reason", "qdisc_drop_reason", "ovs_drop_reason"}

// dropReasons reads the reasons from the running kernel, because the numbers
// differ from kernel to kernel. Before Linux 5.17 there is none and the table is
// empty.
func dropReasons(spec *btf.Spec) map[uint32]string {
	reasons := map[uint32]string{}
	for _, list := range reasonEnums {
		var enum *btf.Enum
		if err := spec.TypeByName(list, &enum); err != nil {
			continue
		}
		for _, v := range enum.Values {
			name, ok := strings.CutPrefix(v.Name, "SKB_DROP_REASON_")
			if !ok { // SKB_CONSUMED, SKB_NOT_DROPPED_YET
				name = strings.TrimPrefix(name, "SKB_")
			}
			if !slices.Contains(unspecified, name) {
				reasons[uint32(v.Value)] = name
			}
		}
	}
	return reasons
}

// unspecified are reasons that give none.
var unspecified = []string{"NOT_SPECIFIED", "QDISC_DROP_UNSPEC"}

// symbols names kernel addresses. Drops come from few places, so each is looked
// up once instead of keeping the kernel's 200,000 symbols in memory.
type symbols struct {
	path  string
	cache map[uint64]string
}

func newSymbols(path string) *symbols {
	return &symbols{path: path, cache: map[uint64]string{}}
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
		for i, name := range lookupSymbols(s.path, unknown) {
			s.cache[unknown[i]] = name
		}
	}
	found := make([]string, len(addrs))
	for i, addr := range addrs {
		found[i] = s.cache[addr]
	}
	return found
}

// lookupSymbols reads the file once for all addresses: it has some 200,000 lines.
func lookupSymbols(path string, addrs []uint64) []string {
	names := make([]string, len(addrs))
	f, err := os.Open(path)
	if err != nil {
		return names
	}
	defer f.Close()
	best := make([]uint64, len(addrs))
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		line := scanner.Text()
		hex, rest, ok := strings.Cut(line, " ")
		// Text symbols only; modules follow the kernel, so there is no order.
		if !ok || len(rest) < 3 || (rest[0] != 't' && rest[0] != 'T') {
			continue
		}
		at, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || at == 0 {
			continue
		}
		for i, addr := range addrs {
			if at > addr || at < best[i] {
				continue
			}
			best[i] = at
			name, _, _ := strings.Cut(rest[2:], "\t")
			// Compilers split functions: nft_do_chain.cold is nft_do_chain.
			names[i], _, _ = strings.Cut(name, ".")
		}
	}
	return names
}
