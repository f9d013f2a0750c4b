package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/procfs"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// tcpListen is the state of a TCP socket that listens (include/net/tcp_states.h).
const tcpListen = 10

// sockets returns what a process can be reached at: addresses of TCP and UDP, and
// files of unix sockets. What is of another kind, raw or packet sockets for
// example, is there by the number of its inode.
func sockets(t *testing.T, pid int) []string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	process, err := procfs.NewProc(pid)
	must(err)
	targets, err := process.FileDescriptorTargets()
	must(err)
	// Those of its network namespace, whoever's they are.
	space, err := procfs.NewFS(fmt.Sprintf("/proc/%d", pid))
	must(err)
	known := map[uint64]string{}
	for _, read := range []func() (procfs.NetTCP, error){space.NetTCP, space.NetTCP6} {
		lines, err := read()
		must(err)
		for _, l := range lines {
			known[l.Inode] = ""
			if l.St == tcpListen {
				known[l.Inode] = address("tcp", l.LocalAddr, l.LocalPort)
			}
		}
	}
	for _, read := range []func() (procfs.NetUDP, error){space.NetUDP, space.NetUDP6} {
		lines, err := read()
		must(err)
		for _, l := range lines {
			known[l.Inode] = address("udp", l.LocalAddr, l.LocalPort)
		}
	}
	files, err := space.NetUNIX()
	must(err)
	for _, f := range files.Rows {
		known[f.Inode] = f.Path
	}
	var reached []string
	for _, target := range targets {
		text, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		must(err)
		at, ok := known[inode]
		if !ok {
			at = target
		}
		if at != "" {
			reached = append(reached, at)
		}
	}
	slices.Sort(reached)
	return reached
}

func address(network string, ip []byte, port uint64) string {
	a, _ := netip.AddrFromSlice(ip)
	return network + " " + netip.AddrPortFrom(a.Unmap(), uint16(port)).String()
}

// The tracer can be reached at its two unix sockets, which are root's, and at
// loopback; elsewhere only where its user asks for that. Nor does an output that
// sends open anything. In a namespace of its own it finds the default port free.
func TestNothingListensBeyondLoopback(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		beside []string
	}{
		{"as it is", nil, []string{"tcp 127.0.0.1:9464"}},
		{"with OTLP", []string{"--output", "otlp:http://127.0.0.1:1", "--output", "otlp:grpc://127.0.0.1:1"}, []string{"tcp 127.0.0.1:9464"}},
		{"without metrics", []string{"--metrics", ""}, nil},
		{"as asked for", []string{"--metrics", ":9999"}, []string{"tcp [::]:9999"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := lab.New(t, lab.Config{})
			tracer, err := l.Start(lab.Spec{
				Name: "dnstrace", Host: "client-b", Path: binary(t), Ready: lab.ReadyLine("dnstrace: ready"),
				Args: append([]string{"run", "--listen", l.RecordSocket(), "--api", l.APISocket(), "--output", "file:" + l.RecordFile(), "--kubernetes", "off"}, tc.args...),
			})
			if err != nil {
				t.Fatal(err)
			}
			want := append([]string{l.APISocket(), l.RecordSocket()}, tc.beside...)
			slices.Sort(want)
			if got := sockets(t, tracer.Pid()); !slices.Equal(got, want) {
				t.Errorf("it can be reached at %q, expected %q", got, want)
			}
			for path, mode := range map[string]os.FileMode{l.APISocket(): 0o600, l.RecordSocket(): 0o666} {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 || info.Mode().Perm() != mode {
					t.Errorf("%s is of user %d, mode %o", filepath.Base(path), owner, info.Mode().Perm())
				}
			}
		})
	}
}
