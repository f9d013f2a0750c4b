package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// sockets returns where a process in a host's namespace can be reached, as ss tells:
// by TCP, UDP, raw and packet sockets, and unix sockets.
func sockets(t *testing.T, l *lab.Lab, host string, pid int) []string {
	t.Helper()
	out, err := l.Run(t.Context(), lab.Spec{Name: "ss", Host: host, Path: "ss",
		Args: []string{"--no-header", "--listening", "--numeric", "--processes", "--tcp", "--udp", "--raw", "--packet", "--unix"}})
	if err != nil {
		t.Fatalf("%v (of the Debian package iproute2)", err)
	}
	var reached []string
	for line := range strings.Lines(out) {
		// Kind, state, two queues, then the local address.
		if f := strings.Fields(line); strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) {
			reached = append(reached, f[0]+" "+f[4])
		}
	}
	slices.Sort(reached)
	return reached
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
		{"as asked for", []string{"--metrics", ":9999"}, []string{"tcp *:9999"}},
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
			want := append([]string{"u_str " + l.APISocket(), "u_dgr " + l.RecordSocket()}, tc.beside...)
			slices.Sort(want)
			if got := sockets(t, l, "client-b", tracer.Pid()); !slices.Equal(got, want) {
				t.Errorf("it can be reached at %q, expected %q", got, want)
			}
			for path, mode := range map[string]os.FileMode{l.APISocket(): 0o600, l.RecordSocket(): 0o660} {
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
