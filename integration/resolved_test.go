package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// resolvedScript starts systemd-resolved without systemd, in a mount namespace of
// its own, with its user, its settings and an empty /run; $0 is a folder of files.
const resolvedScript = `cd "$0" && mount --bind passwd /etc/passwd && mount --bind group /etc/group &&
mount -t tmpfs none /run && mkdir -p /run/systemd/resolved.conf.d && cp resolved.conf /run/systemd/resolved.conf.d/ && exec "$1"`

// startResolved starts systemd-resolved in a pod, asking the Service.
func startResolved(t *testing.T, r *rig, in group, pod string) *lab.Process {
	t.Helper()
	bin, err := filepath.Abs("../bin/resolved")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "systemd-resolved")); err != nil {
		t.Fatalf("%v; run `make bin/resolved` first", err)
	}
	for name, content := range map[string]string{
		"passwd":        "root:x:0:0::/:/bin/sh\nsystemd-resolve:x:65533:65533::/:/bin/false\n",
		"group":         "root:x:0:\nsystemd-resolve:x:65533:\n",
		"resolved.conf": fmt.Sprintf("[Resolve]\nDNS=%s\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n", lab.ServiceV4.Addr()),
	} {
		if err := os.WriteFile(filepath.Join(r.Dir(), name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := r.Start(in.holds(lab.Spec{
		Name: "systemd-resolved", Host: pod, Path: "/bin/sh", Ready: lab.ReadyListening(53),
		Args: []string{"-c", resolvedScript, r.Dir(), filepath.Join(bin, "systemd-resolved")},
		Env:  []string{"LD_LIBRARY_PATH=" + bin}, ResolvConf: "nameserver 127.0.0.53\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// systemd-resolved is the server of the one who asks it over loopback, and the
// client of CoreDNS.
func TestWhoIsResolved(t *testing.T) {
	clients, middle, servers := newGroup(t, "clients"), newGroup(t, "resolved"), newGroup(t, "coredns")
	r := tracerOnly(t)
	server := startIn(t, r, servers, "coredns")
	resolved := startResolved(t, r, middle, "client-a")
	who := trace.Endpoint{Process: "systemd-resolve", PID: resolved.Pid(), Cgroup: middle.path} // names have 15 bytes
	serves := trace.Endpoint{Process: "coredns", PID: server.Pid(), Cgroup: servers.path}
	getent := stubs(t)[0]
	for network, options := range map[string]string{"udp": "", "tcp": "use-vc"} {
		name := network + ".resolved.test."
		pid, err := getent.asksAt("127.0.0.53", r, clients, "client-a", name, options)
		if err != nil {
			t.Fatal(err)
		}
		asks := trace.Endpoint{Process: "getent", PID: pid, Cgroup: clients.path}
		for _, tr := range r.traces(name, 2) {
			if tr.Exchange.Protocol != network {
				t.Errorf("%s: over %s", name, tr.Exchange.Protocol)
			}
			checkWho(t, tr.Exchange, asks, who)
			if len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil {
				t.Errorf("%s: upstreams %+v; gaps %v", name, tr.Upstreams, tr.Gaps)
				continue
			}
			checkWho(t, tr.Upstreams[0].Exchange, who, serves)
		}
	}
}
