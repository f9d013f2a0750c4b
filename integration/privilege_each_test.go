package integration

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// with runs a program as another user with these capabilities and no others.
func with(capabilities string, program ...string) lab.Spec {
	caps := "-all" + capabilities
	args := []string{"--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps, "--pdeathsig", "KILL"}
	return lab.Spec{Name: "as-nobody", Path: "setpriv", Args: append(args, program...), Ready: lab.ReadyLine("dnstrace: ready")}
}

// Capability by capability: what is needed, what each further one is for, that who
// lacks one is told which, and what is then seen and what is lost.
func TestEachCapability(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	server, err := r.StartCoreDNS(corefile(r.Lab, ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, capabilities string
		starts             bool
		says               []string // of `check`
		drop               string   // the drop in words, where a drop can be seen
	}{
		{"none", "", false, []string{"MISSING  CAP_BPF", "MISSING  CAP_PERFMON"}, ""},
		{"BPF", ",+bpf", false, []string{"ok       CAP_BPF", "MISSING  CAP_PERFMON"}, ""},
		{"PERFMON", ",+perfmon", false, []string{"MISSING  CAP_BPF", "ok       CAP_PERFMON"}, ""},
		{"NET_ADMIN and SYS_PTRACE", ",+net_admin,+sys_ptrace", false, []string{"MISSING  CAP_BPF", "MISSING  CAP_PERFMON"}, ""},
		// All hooks: the BTF tracepoints, and the iterator over sockets.
		{"BPF and PERFMON", ",+bpf,+perfmon", true,
			[]string{"ok       CAP_BPF", "ok       CAP_PERFMON", "ok       load and attach", "ok       silent servers", "limited  kernel symbols",
				"ok       arrival at sockets       UDP by sk_data_ready", "ok       reading from sockets"}, withoutSymbols},
		{"BPF, PERFMON and NET_ADMIN", ",+bpf,+perfmon,+net_admin", true,
			[]string{"ok       arrival at sockets       UDP and TCP by cgroup_skb/ingress of the root cgroup: every packet"}, withoutSymbols},
		{"BPF, PERFMON and SYS_PTRACE", ",+bpf,+perfmon,+sys_ptrace", true, []string{"ok       CAP_BPF", "limited  kernel symbols"}, withoutSymbols},
		{"BPF, PERFMON and SYSLOG", ",+bpf,+perfmon,+syslog", true, []string{"ok       kernel symbols"}, "netfilter hook FORWARD"},
		{"SYS_ADMIN alone, as before Linux 5.8", ",+sys_admin", true,
			[]string{"ok       CAP_BPF", "ok       CAP_PERFMON", "CAP_SYS_ADMIN stands for it", "limited  kernel symbols"}, withoutSymbols},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := r.Run(t.Context(), with(tc.capabilities, binary(t), "check", "--api", filepath.Join(r.Dir(), "none.sock")))
			if (err == nil) != tc.starts {
				t.Errorf("check: %v", err)
			}
			wantAll(t, out, tc.says...)
			dir := nobodysFolder(t)
			records := filepath.Join(dir, "records")
			run := with(tc.capabilities, binary(t), "run", "--listen", filepath.Join(dir, "r.sock"), "--api", filepath.Join(dir, "a.sock"),
				"--output", "file:"+records, "--record", "exchange,trace", "--metrics", "", "--kubernetes", "off", "--timeout", "1s")
			if !tc.starts {
				_, err := r.Run(t.Context(), run)
				if err == nil {
					t.Fatal("it runs")
				}
				wantAll(t, err.Error(), "exit code 1", "CAP_")
				return
			}
			tracer, err := r.Start(run)
			if err != nil {
				t.Fatal(err)
			}
			checkPowerless(t, tracer, "CapInh", "CapPrm", "CapEff", "CapAmb")
			r.answered(lab.Query{Name: "answered.test."})
			r.dropped("dropped.test.")
			if err := tracer.Stop(); err != nil || tracer.ExitCode() != 0 {
				t.Errorf("it ended with %d, %v\n%s", tracer.ExitCode(), err, tracer.Stderr())
			}
			checkDelivered(t, records, server.Pid(), tc.drop)
		})
	}
}

// withoutSymbols is what is said of a drop by a firewall, the function being unknown.
const withoutSymbols = "netfilter"

// dropped asks for a name while a firewall drops what the node forwards.
func (r *rig) dropped(name string) {
	r.t.Helper()
	undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
	if err != nil {
		r.t.Fatal(err)
	}
	defer undo()
	r.ask(lab.Query{Name: name, Timeout: 500 * time.Millisecond})
}

// nobodysFolder makes a folder in which a process without privileges may write.
func nobodysFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// The folders above belong to root.
	for at := dir; at != filepath.Dir(os.TempDir()) && at != os.TempDir(); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkDelivered wants what each hook delivers: packets on their way out and in, both
// ends' processes, and a drop, told in these words.
func checkDelivered(t *testing.T, records string, server int, drop string) {
	t.Helper()
	found := map[string]*trace.Exchange{}
	for _, rec := range readRecords(t, records) {
		if ex, ok := rec.(*trace.Exchange); ok && ex.ServerIP == lab.ServiceV4.Addr() {
			found[ex.QName] = ex
		}
	}
	answered, dropped := found["answered.test."], found["dropped.test."]
	if answered == nil || dropped == nil || dropped.LastDrop() == nil {
		t.Fatalf("seen %+v, dropped %+v", answered, dropped)
	}
	ways := map[string]bool{}
	for _, s := range answered.Path.All() {
		ways[s.Direction] = true
	}
	if !ways[trace.DirectionTX] || !ways[trace.DirectionRX] || answered.Outcome != trace.OutcomeAnswered {
		t.Errorf("%s, seen %v", answered.Outcome, ways)
	}
	if c, s := answered.Client, answered.Server; c == nil || c.PID != os.Getpid() || s == nil || s.PID != server {
		t.Errorf("client %+v, server %+v, expected %d and %d", c, s, os.Getpid(), server)
	}
	if d := dropped.LastDrop(); d.Reason != "NETFILTER_DROP" || d.Description != drop || (d.Where == "") != (drop == withoutSymbols) {
		t.Errorf("drop %+v, expected %q", d, drop)
	}
}

// Who may ask: the API answers root alone, records are taken from root and CoreDNS's group,
// and nothing else listens but the metrics, on loopback.
func TestWhoMayAsk(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	if err := os.Chmod(r.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	tracer, err := r.StartTracer("--metrics", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{r.APISocket(): 0o600, r.RecordSocket(): 0o660, r.RecordFile(): 0o640} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, expected %o", path, info.Mode().Perm(), want)
		}
	}
	_, err = r.Run(t.Context(), with("", binary(t), "explain", "--api", r.APISocket(), "example.com"))
	if err == nil {
		t.Fatal("the API answers anybody")
	}
	wantAll(t, err.Error(), "permission denied on "+r.APISocket(), "sudo")

	listening := listeners(t, tracer.Pid())
	if len(listening) != 1 || !listening[0].Addr().IsLoopback() {
		t.Errorf("it listens at %v, expected one address of loopback", listening)
	}
	help, err := r.Dnstrace(t.Context(), "run", "--help")
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, help, `(default "127.0.0.1:9464")`)
}

// listeners returns the TCP addresses at which a process listens (proc_pid_net(5)).
func listeners(t *testing.T, pid int) []netip.AddrPort {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	sockets := map[string]bool{}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	const listen = "0A"
	var found []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == listen && sockets[fields[9]] {
				found = append(found, procAddress(t, fields[1]))
			}
		}
		f.Close()
	}
	return found
}

// procAddress reads an address as /proc/net/tcp has it: 32-bit words in the order of
// the machine, here little-endian.
func procAddress(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	digits, portDigits, _ := strings.Cut(s, ":")
	ip := make([]byte, len(digits)/2)
	for i := range ip {
		if _, err := fmt.Sscanf(digits[2*i:2*i+2], "%02X", &ip[i/4*4+3-i%4]); err != nil {
			t.Fatal(err)
		}
	}
	var port uint16
	if _, err := fmt.Sscanf(portDigits, "%04X", &port); err != nil {
		t.Fatal(err)
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		t.Fatalf("no address: %s", s)
	}
	return netip.AddrPortFrom(addr, port)
}
