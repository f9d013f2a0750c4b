package capture

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf/btf"
)

func TestDropReasonsOfThisKernel(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range dropReasons(kernel) {
		found[name] = true
	}
	if !kernelAtLeast(5, 17) && len(found) == 0 {
		return
	}
	for _, want := range []string{"NO_SOCKET", "SOCKET_RCVBUFF"} {
		if !found[want] {
			t.Errorf("no %s among %d reasons", want, len(found))
		}
	}
	if found["NOT_SPECIFIED"] {
		t.Error("a reason that is none")
	}
}

func TestSymbols(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	text := "ffffffff81000000 T _text\nffffffff81000100 t nft_do_chain.cold\nffffffff81000200 D data\n" +
		"ffffffffc0000000 t module_function\t[module]\nffffffff81000180 T nf_hook_slow\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSymbols(path)
	for addr, want := range map[uint64]string{
		0xffffffff81000123: "nft_do_chain",
		0xffffffff81000190: "nf_hook_slow",
		0xffffffffc0000010: "module_function",
		0x1000:             "",
	} {
		if got := s.names([]uint64{addr})[0]; got != want {
			t.Errorf("%x: %q, want %q", addr, got, want)
		}
	}
	if got := newSymbols(filepath.Join(t.TempDir(), "none")).names([]uint64{1})[0]; got != "" {
		t.Errorf("without a file: %q", got)
	}
}

func TestNamespaceNames(t *testing.T) {
	t.Run("exact times", func(t *testing.T) { testNamespaceNames(t, func(string) {}) })
	// Where times of files go by ticks, a change may have the time of the one before.
	tick := time.Unix(1, 0)
	t.Run("times by ticks", func(t *testing.T) {
		testNamespaceNames(t, func(dir string) {
			if err := os.Chtimes(dir, tick, tick); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func testNamespaceNames(t *testing.T, changed func(dir string)) {
	dir, aside := t.TempDir(), t.TempDir()
	others := make([]string, 3)
	for i := range others {
		others[i] = filepath.Join(aside, fmt.Sprintf("other-%d", i))
		if err := os.WriteFile(others[i], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(0, 0)
	n := newNamespaces(dir)
	n.now = func() time.Time { return now }
	add := func(name string) uint32 {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		changed(dir)
		inode, err := inodeOf(path)
		if err != nil {
			t.Fatal(err)
		}
		return inode
	}
	if got := n.name(add("pod-a")); got != "pod-a" {
		t.Errorf("got %q", got)
	}
	late := add("pod-b")
	if got := n.name(late); got != "" {
		t.Errorf("read again at once: %q", got)
	}
	now = now.Add(refreshEvery)
	if got := n.name(late); got != "pod-b" {
		t.Errorf("got %q", got)
	}
	// The inode of one that went is given to the next.
	if err := os.Rename(filepath.Join(dir, "pod-b"), filepath.Join(dir, "pod-c")); err != nil {
		t.Fatal(err)
	}
	changed(dir)
	n.renew()
	if got := n.name(late); got != "pod-c" {
		t.Errorf("an inode that is used again: %q", got)
	}
	// The last packets of one that went come after it.
	if err := os.Remove(filepath.Join(dir, "pod-c")); err != nil {
		t.Fatal(err)
	}
	changed(dir)
	for round, want := range []string{"pod-c", "pod-c", ""} {
		n.renew()
		// Others come meanwhile.
		if err := os.Rename(others[round], filepath.Join(dir, filepath.Base(others[round]))); err != nil {
			t.Fatal(err)
		}
		changed(dir)
		if got := n.name(late); got != want {
			t.Errorf("round %d after it went: %q, expected %q", round, got, want)
		}
	}
	// A process that may not look at PID 1 has no name for the node's own.
	if own, err := HostNetNS(); err == nil && n.name(own) != "host" {
		t.Errorf("the node's own namespace: %q", n.name(own))
	}
	if n.name(0) != "" {
		t.Error("an unknown namespace has a name")
	}
}

// An address is of the function that begins last before it, wherever in the file
// that stands.
func TestSymbolNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	content := "0000000000000000 T hidden\n" +
		"ffffffff81000000 T _text\n" +
		"ffffffff81000000 T _stext\n" +
		"ffffffff81000100 t kfree_skb.part.0\n" +
		"ffffffff81000180 d not_a_function\n" +
		"ffffffff81000200 T udp_rcv\n" +
		"ffffffffc0002000 t later_module\t[b]\n" +
		"ffffffffc0001000 t nft_do_chain.cold\t[nf_tables]\n" +
		"ffffffffc0001100 t nft_end\t[nf_tables]\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSymbols(path)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // the second time from memory
		addrs := []uint64{
			0xffffffff80ffffff, 0xffffffff81000000, 0xffffffff810001ff, 0xffffffff81000200,
			0xffffffffc0001050, 0xffffffffc0001fff, 0xffffffffc0002abc, 0xffffffffc0000fff,
		}
		want := []string{"", "_stext", "kfree_skb", "udp_rcv", "nft_do_chain", "nft_end", "later_module", "udp_rcv"}
		if got := s.names(addrs); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Two changes between two timer interrupts have one time.
func TestNamespaceThatComesRightAfterAnother(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pod-a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inode, err := inodeOf(path)
	if err != nil {
		t.Fatal(err)
	}
	n := newNamespaces(dir)
	at := time.Now().Truncate(time.Second)
	for round, tc := range []struct {
		rename string
		after  time.Duration // since the last change that has a time of its own
		want   string
	}{{"pod-b", time.Millisecond, "pod-b"}, {"pod-c", 2 * time.Millisecond, "pod-c"}, {"pod-d", 30 * time.Millisecond, "pod-d"}} {
		if err := os.Rename(path, filepath.Join(dir, tc.rename)); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, tc.rename)
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
		n.now = func() time.Time { return at.Add(tc.after) }
		n.renew()
		if got := n.name(inode); got != tc.want {
			t.Errorf("round %d: %q, want %q", round, got, tc.want)
		}
	}
}

// A namespace that came and went between two rounds has its name for its packets.
func TestNamespaceThatLivesShortly(t *testing.T) {
	dir := t.TempDir()
	n := newNamespaces(dir)
	n.renew()
	if n.come == nil {
		t.Fatal("the directory is not watched")
	}
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "short")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	inode, err := inodeOf(path)
	if err != nil {
		t.Fatal(err)
	}
	noticed := func() bool {
		n.come.mu.Lock()
		defer n.come.mu.Unlock()
		return n.come.seen[inode] == "short"
	}
	for end := time.Now().Add(time.Minute); !noticed() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	n.host = 0 // this process is in the node's own namespace, perhaps
	for round, want := range []string{"short", "short", ""} {
		n.renew()
		if got := n.name(inode); got != want {
			t.Errorf("round %d after it went: %q, expected %q", round, got, want)
		}
	}
}

// PID 1 of a container is in the container's network namespace, not in the node's.
func TestHostNetNSInAContainer(t *testing.T) {
	if os.Getenv("DNSTRACE_TEST_IN_CONTAINER") != "" {
		inode, err := HostNetNS()
		if err == nil || !strings.Contains(err.Error(), "this is a container") {
			t.Errorf("namespace %d, error %v", inode, err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostNetNSInAContainer$", "-test.v")
	cmd.Env = append(os.Environ(), "DNSTRACE_TEST_IN_CONTAINER=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
