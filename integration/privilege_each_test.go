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

	"github.com/dnstrace/dnstrace/integration/lab"
)

// with runs a program as another user with these capabilities and no others.
func with(capabilities string, program ...string) lab.Spec {
	caps := "-all" + capabilities
	args := []string{"--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps, "--pdeathsig", "KILL"}
	return lab.Spec{Name: "as-nobody", Path: "setpriv", Args: append(args, program...), Ready: lab.ReadyLine("dnstrace: ready")}
}

// Capability by capability: what is needed, what each further one is for, and that
// who lacks one is told which.
func TestEachCapability(t *testing.T) {
	l := lab.New(t, lab.Config{})
	for _, tc := range []struct {
		name, capabilities string
		starts             bool
		says               []string // of `check`
	}{
		{"none", "", false, []string{"MISSING  CAP_BPF", "MISSING  CAP_PERFMON"}},
		{"BPF", ",+bpf", false, []string{"ok       CAP_BPF", "MISSING  CAP_PERFMON"}},
		{"PERFMON", ",+perfmon", false, []string{"MISSING  CAP_BPF", "ok       CAP_PERFMON"}},
		{"NET_ADMIN and SYS_PTRACE", ",+net_admin,+sys_ptrace", false, []string{"MISSING  CAP_BPF", "MISSING  CAP_PERFMON"}},
		// All hooks: three BTF tracepoints, and the iterator over sockets.
		{"BPF and PERFMON", ",+bpf,+perfmon", true, []string{"ok       CAP_BPF", "ok       CAP_PERFMON", "ok       load and attach", "ok       silent servers"}},
		{"BPF, PERFMON and SYS_PTRACE", ",+bpf,+perfmon,+sys_ptrace", true, []string{"ok       CAP_BPF"}},
		{"BPF, PERFMON and SYSLOG", ",+bpf,+perfmon,+syslog", true, []string{"ok       kernel symbols"}},
		{"SYS_ADMIN alone, as before Linux 5.8", ",+sys_admin", true, []string{"ok       CAP_BPF", "ok       CAP_PERFMON", "CAP_SYS_ADMIN stands for it"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := l.Run(t.Context(), with(tc.capabilities, binary(t), "check", "--api", filepath.Join(l.Dir(), "none.sock")))
			if (err == nil) != tc.starts {
				t.Errorf("check: %v", err)
			}
			wantAll(t, out, tc.says...)
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
			run := with(tc.capabilities, binary(t), "run", "--listen", filepath.Join(dir, "r.sock"), "--api", filepath.Join(dir, "a.sock"),
				"--output", "file:"+filepath.Join(dir, "records"), "--metrics", "", "--kubernetes", "off")
			if !tc.starts {
				_, err := l.Run(t.Context(), run)
				if err == nil {
					t.Fatal("it runs")
				}
				wantAll(t, err.Error(), "exit code 1", "CAP_")
				return
			}
			tracer, err := l.Start(run)
			if err != nil {
				t.Fatal(err)
			}
			checkPowerless(t, tracer, "CapInh", "CapPrm", "CapEff", "CapAmb")
			if err := tracer.Stop(); err != nil || tracer.ExitCode() != 0 {
				t.Errorf("it ended with %d, %v\n%s", tracer.ExitCode(), err, tracer.Stderr())
			}
		})
	}
}

// Who may ask: the API answers root alone, records are taken from whoever reaches the
// socket, which is no secret, and nothing else listens but the metrics, on loopback.
func TestWhoMayAsk(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	if err := os.Chmod(r.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	tracer, err := r.StartTracer("--metrics", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{r.APISocket(): 0o600, r.RecordSocket(): 0o666, r.RecordFile(): 0o640} {
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
