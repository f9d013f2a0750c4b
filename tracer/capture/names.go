package capture

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
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

// dropReasons reads enum skb_drop_reason (include/net/dropreason-core.h) from
// the running kernel, because the numbers differ from kernel to kernel. Before
// Linux 5.17 there is none and the table is empty.
func dropReasons(spec *btf.Spec) map[uint32]string {
	reasons := map[uint32]string{}
	var enum *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &enum); err != nil {
		return reasons
	}
	for _, v := range enum.Values {
		name := strings.TrimPrefix(strings.TrimPrefix(v.Name, "SKB_DROP_REASON_"), "SKB_")
		if name != "NOT_SPECIFIED" {
			reasons[uint32(v.Value)] = name
		}
	}
	return reasons
}

// symbols names kernel addresses. Drops come from few places, so each is looked
// up once instead of keeping the kernel's 200,000 symbols in memory.
type symbols struct {
	path  string
	cache map[uint64]string
}

func newSymbols(path string) *symbols {
	return &symbols{path: path, cache: map[uint64]string{}}
}

// name returns the function that contains the address, or "" where
// kernel.kptr_restrict hides the addresses.
func (s *symbols) name(addr uint64) string {
	if name, ok := s.cache[addr]; ok {
		return name
	}
	name := lookupSymbol(s.path, addr)
	s.cache[addr] = name
	return name
}

func lookupSymbol(path string, addr uint64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var best uint64
	var name string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		line := scanner.Text()
		hex, rest, ok := strings.Cut(line, " ")
		// Text symbols only; modules follow the kernel, so there is no order.
		if !ok || len(rest) < 3 || (rest[0] != 't' && rest[0] != 'T') {
			continue
		}
		at, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || at == 0 || at > addr || at < best {
			continue
		}
		best = at
		name, _, _ = strings.Cut(rest[2:], "\t")
	}
	// Compilers split functions: nft_do_chain.cold is nft_do_chain.
	name, _, _ = strings.Cut(name, ".")
	return name
}
