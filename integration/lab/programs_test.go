package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// withoutServer is a lab whose CoreDNS pod is still empty.
func withoutServer(t *testing.T) *Lab {
	t.Helper()
	l, s := newLab(t, Config{})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCoreDNSForwards(t *testing.T) {
	t.Parallel()
	l := withoutServer(t)
	p, err := l.StartCoreDNS(fmt.Sprintf(`. {
		cache 30
		errors
		forward . %s %s {
			policy sequential
			max_fails 0
		}
	}`, l.Upstream(0).V4(), l.Upstream(1).V6()))
	if err != nil {
		t.Fatal(err)
	}
	undo := l.SilentUpstream(0, "failover.test")
	defer undo()
	for _, w := range ways {
		name := w.name + ".failover.test."
		r, err := l.Client("client-a").Exchange(t.Context(), Query{Name: name, Network: w.network, Server: w.server, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		if a := r.Answer.Answer[0].(*dns.A); !a.A.Equal(AddrA(name).AsSlice()) {
			t.Errorf("%s: %v", w.name, r.Answer)
		}
		silent, second := l.Upstream(0).Received(name), l.Upstream(1).Received(name)
		if len(silent) == 0 || len(second) != 1 || silent[0].Client.Addr() != l.Host(CoreDNS).V4 || second[0].Client.Addr() != l.Host(CoreDNS).V6 {
			t.Errorf("%s: upstreams received %+v and %+v", w.name, silent, second)
		}
	}
	undo, err = l.NoListener(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test"}); err == nil || p.ExitCode() != 0 {
		t.Errorf("CoreDNS ended with code %d, lookup %v", p.ExitCode(), err)
	}
	undo()
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test"}); err != nil {
		t.Errorf("after undo: %v", err)
	}
}

func TestDnsmasqForwards(t *testing.T) {
	l := withoutServer(t)
	p, err := l.StartDnsmasq([]netip.Addr{l.Upstream(0).V4().Addr()}, "--log-queries")
	if err != nil {
		t.Fatal(err)
	}
	if err := ReadyAnswer(netip.MustParseAddrPort("127.0.0.1:53"), "ready.test")(t.Context(), p); err != nil {
		t.Error(err)
	}
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "masq.test"}); err != nil {
		t.Error(err)
	}
	if len(l.Upstream(0).Received("masq.test")) != 1 || !strings.Contains(p.Stderr(), "masq.test") {
		t.Errorf("upstream received %+v, output %s", l.Upstream(0).Received(), p.Stderr())
	}
}

func TestStoppedServerKeepsQueriesWaiting(t *testing.T) {
	l := withoutServer(t)
	p, err := l.StartCoreDNS(". {\n whoami\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	// Between two runs one of its threads may be at work when it is stopped.
	for range 20 {
		if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test"}); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		requireStopped(t, p)
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test", Timeout: short}); err == nil {
		t.Error("a stopped server answered")
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test"}); err != nil {
		t.Error(err)
	}
}

// requireStopped wants every thread of a process in state T (proc_pid_stat(5)).
func requireStopped(t *testing.T, p *Process) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid()))
	if err != nil || len(threads) == 0 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			t.Fatal(err)
		}
		if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
			t.Errorf("a thread of a stopped process: %.40s", stat)
		}
	}
}

func TestRealResolverInAPod(t *testing.T) {
	l, s := newLab(t, Config{})
	out, err := l.Run(t.Context(), Spec{
		Name: "getent", Host: "client-b", Path: "getent", Args: []string{"ahostsv4", "www"},
		ResolvConf: "nameserver 10.96.0.10\nsearch pod.test\noptions ndots:5\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, AddrA("www.pod.test").String()) {
		t.Errorf("getent: %s", out)
	}
	if got := s.Received("www.pod.test"); len(got) == 0 || got[0].Client.Addr() != l.Host("client-b").V4 {
		t.Errorf("the server received %+v", s.Received())
	}
	if host, err := os.ReadFile("/etc/resolv.conf"); err == nil && strings.Contains(string(host), "pod.test") {
		t.Error("the host's resolv.conf was touched")
	}
	if _, err := l.Run(t.Context(), Spec{Name: "false", Path: "sh", Args: []string{"-c", "echo bad >&2; exit 4"}}); err == nil || !strings.Contains(err.Error(), "exit code 4: bad") {
		t.Errorf("error %v", err)
	}
}

func TestProcessesRunWhereTheyShould(t *testing.T) {
	l, _ := newLab(t, Config{})
	for _, host := range []string{"", Node, CoreDNS, Upstream, "client-a"} {
		out, err := l.Run(t.Context(), Spec{Name: "ns", Host: host, Path: "readlink", Args: []string{"/proc/self/ns/net"}})
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			inode, err := l.Host(host).Inode()
			if err != nil {
				t.Fatal(err)
			}
			want = fmt.Sprintf("net:[%d]", inode)
		}
		if strings.TrimSpace(out) != want {
			t.Errorf("%q runs in %s, want %s", host, out, want)
		}
	}
	// No thread of this process may be left inside the lab.
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && ns != home {
			t.Errorf("thread %s is in %s, not in %s", task.Name(), ns, home)
		}
	}
}
