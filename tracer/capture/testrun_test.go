package capture

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/trace"
)

// BPF_PROG_TEST_RUN does not support the programs themselves: those at a BTF tracepoint
// take pointers to the kernel's own buffers (net/bpf/test_run.c: no tp_btf). It can of
// one at tc, to which the kernel gives a buffer made of our bytes. That sends it on, so
// that the tracepoints see the buffer as the test run built it.

// testRun returns a function that gives frames to a program at tc, which sends them to
// the loopback device of a namespace of its own.
func testRun(t testing.TB) (netns string, run func(frame []byte) error) {
	t.Helper()
	send, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 1), // the loopback device
		asm.Mov.Imm(asm.R3, 0), // on its way out
		asm.FnCloneRedirect.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = send.Close() })
	frames, results, tid := make(chan []byte), make(chan error), make(chan int, 1)
	go func() {
		// Not unlocked: the thread ends with the goroutine, and with it its namespace.
		runtime.LockOSThread()
		tid <- unix.Gettid()
		results <- ownNamespace()
		for f := range frames {
			code, _, err := send.Test(f)
			if err == nil && int32(code) < 0 {
				err = unix.Errno(-int32(code))
			}
			results <- err
		}
	}()
	t.Cleanup(func() { close(frames) })
	if err := <-results; err != nil {
		t.Fatal(os.NewSyscallError("a namespace", err))
	}
	return netnsAt(t, fmt.Sprintf("/proc/self/task/%d/ns/net", <-tid)), func(frame []byte) error {
		frames <- frame
		return <-results
	}
}

// ownNamespace gives this thread a network namespace whose loopback device is up.
func ownNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// Every frame of TestCraftedPackets, through BPF_PROG_TEST_RUN: seen alike.
func TestCraftedPacketsInATestRun(t *testing.T) {
	netns, run := testRun(t)
	source := openIn(t, netns)
	for _, tc := range slices.Concat(crafted, edges) {
		t.Run(tc.name, func(t *testing.T) {
			for _, f := range tc.frames {
				if err := run(ethernet(uint64(tc.ethertype), f)); err != nil {
					t.Fatal(err)
				}
			}
			got := map[Kind][]Packet{}
			for _, p := range poll(t, source) {
				got[p.Kind] = append(got[p.Kind], p)
			}
			for _, kind := range []Kind{TX, RX} {
				if len(got[kind]) != len(tc.want) {
					t.Fatalf("kind %d: %d packets, expected %d: %+v", kind, len(got[kind]), len(tc.want), got[kind])
				}
				for i := range tc.want {
					compare(t, &got[kind][i], &tc.want[i])
				}
			}
		})
	}
}

// hostileFiles are what the integration tests' attacker sends, each as a file of a
// fuzz corpus.
//
//go:embed testdata/hostile
var hostileFiles embed.FS

// hostileMessages reads them.
func hostileMessages(tb testing.TB) map[string][]byte {
	tb.Helper()
	const folder = "testdata/hostile"
	files, err := hostileFiles.ReadDir(folder)
	if err != nil {
		tb.Fatal(err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		b, err := hostileFiles.ReadFile(path.Join(folder, f.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		_, literal, _ := strings.Cut(string(b), "[]byte(")
		m, err := strconv.Unquote(strings.TrimSuffix(strings.TrimSpace(literal), ")"))
		if err != nil {
			tb.Fatalf("%s: %v", f.Name(), err)
		}
		all[f.Name()] = []byte(m)
	}
	return all
}

// Every hostile message, in packets of five kinds, through BPF_PROG_TEST_RUN: what is
// long enough for a message is reported as it is, and what is not is left out.
func TestHostileMessagesInATestRun(t *testing.T) {
	netns, run := testRun(t)
	source := openIn(t, netns)
	for name, m := range hostileMessages(t) {
		framed := slices.Concat(be(2, uint64(len(m))), m)
		options := with4(plain4, func(h *ipv4) { h.options = make([]byte, 40) })
		for _, frame := range [][]byte{
			ethernet(etherIPv4, tcp4(tcp(cport, dport, 7, FlagACK, nil, framed))),
			ethernet(etherIPv4, plain4.packet(udp(cport, dport, m))),
			ethernet(etherIPv4, options.packet(udp(cport, dport, m))),
			ethernet(etherIPv6, ipv6("2001:db8::1", "2001:db8::2", 17, udp(cport, dport, m))),
			ethernet(0x8100, tag(5, etherIPv4, plain4.packet(udp(cport, dport, m)))),
		} {
			if err := run(frame); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		want := 1 // over TCP, where a message may come in pieces
		if len(m) >= headerBytes {
			want = 5
		}
		seen := map[Kind]int{}
		for _, p := range poll(t, source) {
			sent := m
			if p.Protocol == trace.TransportTCP {
				sent = framed
			}
			if p.PayloadLen != len(sent) || !bytes.HasPrefix(sent, p.Payload) {
				t.Errorf("%s: %d of %d bytes: %x", name, p.PayloadLen, len(sent), p.Payload)
			}
			seen[p.Kind]++
		}
		if seen[TX] != want || seen[RX] != want {
			t.Errorf("%s: seen %d times on the way out, %d in; expected %d", name, seen[TX], seen[RX], want)
		}
	}
}
