package integration

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// containerID is what container runtimes name a cgroup after.
const containerID = "4f0b6a8d3c2e1f907a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f"

// group is a cgroup of a test's own.
type group struct{ dir, path string }

// newGroup makes a cgroup. It must be made before the lab whose processes it
// holds, which is removed first.
func newGroup(t *testing.T, name string) group {
	t.Helper()
	path := fmt.Sprintf("/dnstrace-%d-%s", os.Getpid(), name)
	dir := filepath.Join(cgroup2(t), path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return group{dir, path}
}

// cgroup2 returns where cgroup2 is mounted (proc_pid_mountinfo(5)).
func cgroup2(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		mount, kind, _ := strings.Cut(scanner.Text(), " - ")
		if strings.HasPrefix(kind, "cgroup2 ") {
			return strings.Fields(mount)[4]
		}
	}
	t.Fatal("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
	return ""
}

// holds makes a program run in the group, and print its process id first.
func (g group) holds(spec lab.Spec) lab.Spec {
	spec.Args = append([]string{"-c", `echo $$ >"$0/cgroup.procs" && echo $$ && exec "$@"`, g.dir, spec.Path}, spec.Args...)
	spec.Path = "/bin/sh"
	return spec
}

// stub is a program that resolves the name in its last argument.
type stub struct {
	resolver
	args []string
}

// stubs are the stub resolvers that containers have.
func stubs(t *testing.T) []stub {
	t.Helper()
	return []stub{
		{resolver{"getent", "getent"}, []string{"ahosts"}}, // glibc's
		{buildResolver(t, "musl"), nil},
		{buildResolver(t, "go"), nil},
	}
}

// asks resolves a name in a pod by way of the Service and returns the process id.
func (s stub) asks(r *rig, in group, pod, name, options string) (pid int, err error) {
	return s.asksAt(lab.ServiceV4.Addr().String(), r, in, pod, name, options)
}

func (s stub) asksAt(server string, r *rig, in group, pod, name, options string) (pid int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := r.Run(ctx, in.holds(lab.Spec{
		Name: s.name, Host: pod, Path: s.path, Args: append(s.args[:len(s.args):len(s.args)], name),
		ResolvConf: fmt.Sprintf("nameserver %s\noptions %s\n", server, options),
	}))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(out, "\n")
	return strconv.Atoi(first)
}

// Who asked and who answered is exactly right: process, id, cgroup, and container,
// for every stub resolver and server, over UDP and TCP, on both legs.
func TestWho(t *testing.T) {
	for _, kind := range []string{"coredns", "dnsmasq"} {
		t.Run(kind, func(t *testing.T) {
			clients, servers := newGroup(t, "cri-containerd-"+containerID+".scope"), newGroup(t, kind)
			r := tracerOnly(t)
			server := startIn(t, r, servers, kind)
			serves := trace.Endpoint{Process: kind, PID: server.Pid(), Cgroup: servers.path}
			for _, s := range stubs(t) {
				for network, options := range map[string]string{"udp": "", "tcp": "use-vc"} {
					if s.name == "musl" && network == "tcp" {
						continue // it knows no such option
					}
					name := fmt.Sprintf("%s.%s.test.", s.name, network)
					pid, err := s.asks(r, clients, "client-a", name, options)
					if err != nil {
						t.Fatal(err)
					}
					asks := trace.Endpoint{Process: s.name, PID: pid, Cgroup: clients.path, Container: containerID}
					for _, tr := range r.traces(name, 2) {
						if tr.Exchange.Protocol != network {
							t.Errorf("%s: over %s", name, tr.Exchange.Protocol)
						}
						checkWho(t, tr.Exchange, asks, serves)
						checkUpstreamClient(t, tr, serves)
					}
				}
			}
		})
	}
}

// startIn starts a server in a cgroup, in the pod behind the Service.
func startIn(t *testing.T, r *rig, in group, kind string) *lab.Process {
	t.Helper()
	spec := lab.Spec{Name: kind, Host: lab.CoreDNS, Path: kind, Ready: lab.ReadyListening(53)}
	switch kind {
	case "coredns":
		bin, err := filepath.Abs("../bin/coredns")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(r.Dir(), "Corefile")
		if err := os.WriteFile(file, []byte(corefile(r.Lab, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		spec.Path, spec.Args = bin, []string{"-conf", file}
	case "dnsmasq":
		spec.Args = []string{"--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--pid-file=", "--user=root",
			"--no-resolv", "--no-hosts", "--port=53", "--server=" + r.Upstream(0).V4().Addr().String()}
	}
	p, err := r.Start(in.holds(spec))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkWho wants both ends of an exchange. dnsmasq answers over TCP from a process
// of its own for each connection.
func checkWho(t *testing.T, ex *trace.Exchange, asks, serves trace.Endpoint) {
	t.Helper()
	asks.Node, serves.Node = lab.NodeName, lab.NodeName
	if !isWho(ex.Client, asks) {
		t.Errorf("%s %s: client %+v, expected %+v", ex.QName, ex.QType, ex.Client, asks)
	}
	if serves.Process == "dnsmasq" && ex.Protocol == "tcp" && ex.Server != nil {
		serves.PID = ex.Server.PID
	}
	if !isWho(ex.Server, serves) {
		t.Errorf("%s %s: server %+v, expected %+v", ex.QName, ex.QType, ex.Server, serves)
	}
}

// isWho compares all but the thread, which is known, and is the process itself where
// it has only one; none of these servers names its threads.
func isWho(got *trace.Endpoint, want trace.Endpoint) bool {
	if got == nil || got.TID == 0 || want.Process == "dnsmasq" && got.TID != got.PID {
		return false
	}
	want.TID = got.TID
	return *got == want
}

// checkUpstreamClient wants the server as the client of what it asked the upstream.
func checkUpstreamClient(t *testing.T, tr *trace.Trace, serves trace.Endpoint) {
	t.Helper()
	serves.Node = lab.NodeName
	if len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil {
		t.Errorf("%s %s: upstreams %+v; gaps %v", tr.QName, tr.QType, tr.Upstreams, tr.Gaps)
		return
	}
	up := tr.Upstreams[0].Exchange
	if up.Client != nil && serves.Process == "dnsmasq" && up.Protocol == "tcp" {
		serves.PID = up.Client.PID
	}
	if !isWho(up.Client, serves) {
		t.Errorf("%s %s: asked by %+v, expected %+v", tr.QName, tr.QType, up.Client, serves)
	}
	if s := up.Server; s == nil || s.PID != os.Getpid() {
		t.Errorf("%s %s: the upstream is %+v, expected process %d", tr.QName, tr.QType, s, os.Getpid())
	}
}

// A server that answers each TCP connection from a child: it is the child that is
// named, which is alive as long as the connection.
func TestWhoIsAChild(t *testing.T) {
	r := tracerOnly(t)
	server, err := r.StartDnsmasq([]netip.Addr{r.Upstream(0).V4().Addr()})
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	err = r.Host("client-a").Do(func() (err error) {
		conn, err = net.Dial("tcp", lab.ServiceV4.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire := dns.Conn{Conn: conn}
	if err := wire.WriteMsg(new(dns.Msg).SetQuestion("child.test.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	ex := r.trace("child.test.").Exchange
	if ex.Server == nil || ex.Server.Process != "dnsmasq" || ex.Server.PID == server.Pid() {
		t.Fatalf("server %+v", ex.Server)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", ex.Server.PID))
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, string(stat), fmt.Sprintf("%d (dnsmasq) S %d ", ex.Server.PID, server.Pid()))
}

// Many processes at once, whose queries wait for a neighbour to be resolved and so
// leave from whatever the answer interrupts: each is known for itself or not at
// all, and its socket's cgroup always.
func TestWhoIsNeverAnother(t *testing.T) {
	const rounds, atOnce = 5, 6
	clients := newGroup(t, "clients")
	r := tracerOnly(t)
	if _, err := r.StartCoreDNS(corefile(r.Lab, "")); err != nil {
		t.Fatal(err)
	}
	programs := stubs(t)
	pids := map[string]int{}
	for round := range rounds {
		flush := lab.Spec{Name: "ip", Host: "client-a", Path: "ip", Args: []string{"neigh", "flush", "all"}}
		if _, err := r.Run(t.Context(), flush); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range atOnce {
			wg.Go(func() {
				name := fmt.Sprintf("p%d.r%d.test.", i, round)
				pid, err := programs[i%len(programs)].asks(r, clients, "client-a", name, "")
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				pids[name] = pid
			})
		}
		wg.Wait()
	}
	known := 0
	for name, pid := range pids {
		for _, tr := range r.traces(name, 2) {
			c := tr.Exchange.Client
			if c == nil || c.Cgroup != clients.path || c.PID != 0 && c.PID != pid {
				t.Errorf("%s %s: client %+v, expected process %d in %s", name, tr.QType, c, pid, clients.path)
			}
			if c != nil && c.PID != 0 {
				known++
			}
		}
	}
	t.Logf("%d of %d processes are known", known, 2*len(pids))
	if known == 0 {
		t.Error("no process is known")
	}
}
