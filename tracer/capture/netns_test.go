package capture

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

func TestChooseNamespaces(t *testing.T) {
	dir := t.TempDir()
	own, err := inodeOf("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// A link is as good as what `ip netns` mounts: both lead to the namespace.
	for name, target := range map[string]string{"pod-a": "/proc/self/ns/net", "17": "/proc/self/ns/net", "mount": "/proc/self/ns/mnt"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	early := filepath.Join(dir, "early")
	if err := os.WriteFile(early, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		inode uint32
		err   string
	}{
		{"pod-a", own, ""},
		{"/proc/self/ns/net", own, ""},
		{"4026531840", 4026531840, ""},
		{"17", own, ""}, // a name comes before a number
		{"pod-b", 0, "no network namespace pod-b in " + dir},
		{"0", 0, "no network namespace 0"},
		{"4294967296", 0, "no network namespace 4294967296"},
		{"-1", 0, "no network namespace -1"},
		{"", 0, "expected a name, a path or an inode number"},
		{"..", 0, "expected a name, a path or an inode number"},
		{"/run/netns/not/there", 0, "no such file"},
		{"mount", 0, "is not a network namespace"},
		{early, 0, "is not a network namespace"},
	} {
		got, err := choose(dir, []string{tc.name})
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%q: error %v, expected %q", tc.name, err, tc.err)
		case tc.err == "" && (err != nil || got[0].inode != tc.inode):
			t.Errorf("%q: %+v, %v, expected %d", tc.name, got, err, tc.inode)
		}
	}
	if _, err := choose(dir, make([]string, MaxNetNS+1)); err == nil {
		t.Error("more namespaces than the programs compare with")
	}
}

// namespaceThread is a thread with a network namespace of its own, and loopback in
// it, that lives until the test ends. It returns the namespace's path, and a
// function that asks a port of its loopback.
func namespaceThread(t *testing.T, port uint16) (path string, ask func(name string)) {
	t.Helper()
	names, asked, ready := make(chan string), make(chan error), make(chan string, 1)
	done := goInNewNamespace(func() error {
		ready <- fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		for name := range names {
			asked <- askLoopback(port, name)
		}
		return nil
	})
	select {
	case path = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(names)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path, func(name string) {
		t.Helper()
		names <- name
		if err := <-asked; err != nil {
			t.Fatal(err)
		}
	}
}

func askLoopback(port uint16, name string) error {
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		return err
	}
	defer conn.Close()
	query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(query)
	return err
}

// Of two namespaces only the chosen one is observed, drops included; after it was
// deleted none, and then the one that has its name.
func TestOnlyChosenNamespaces(t *testing.T) {
	const port = 5399
	a, askA := namespaceThread(t, port)
	b, askB := namespaceThread(t, port)
	link := filepath.Join(t.TempDir(), "pod")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	source, err := openDevices(Config{Ports: []uint16{port}, NetNS: []string{link}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct{ change, want string }{{"", a}, {"gone", ""}, {b, b}} {
		switch tc.change {
		case "":
		case "gone":
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
		default:
			if err := os.Symlink(tc.change, link); err != nil {
				t.Fatal(err)
			}
		}
		poll(t, source) // as it does many times a second
		askA("a.test.")
		askB("b.test.")
		var want uint32
		if tc.want != "" {
			if want, err = inodeOf(tc.want); err != nil {
				t.Fatal(err)
			}
		}
		kinds := map[Kind]int{}
		for _, p := range poll(t, source) {
			kinds[p.Kind]++
			if p.NetNS != want {
				t.Errorf("%q: a packet in %d, chosen is %d", tc.change, p.NetNS, want)
			}
		}
		// The query, and the ICMP error about it, which nobody waits for any more; the drop.
		if seen := kinds[TX] > 0 && kinds[RX] > 0 && kinds[Drop] > 0; seen != (want != 0) || want == 0 && len(kinds) > 0 {
			t.Errorf("%q: seen %v", tc.change, kinds)
		}
	}
}
