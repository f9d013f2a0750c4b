package integration

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

const seccompProfile = "../deploy/seccomp/dnstrace.json"

// underSeccomp makes this test binary, started again, take on the profile and become
// the program that its arguments name.
const underSeccomp = "DNSTRACE_TEST_SECCOMP"

// profile is the part of a profile of the OCI's runtime specification that ours has.
type profile struct {
	DefaultAction string `json:"defaultAction"`
	Syscalls      []struct {
		Names  []string `json:"names"`
		Action string   `json:"action"`
	} `json:"syscalls"`
}

// allowed reads what a profile allows.
func allowed(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var p profile
	if err := json.Unmarshal(content, &p); err != nil {
		t.Fatal(err)
	}
	if p.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Fatalf("default action %s", p.DefaultAction)
	}
	var names []string
	for _, group := range p.Syscalls {
		if group.Action != "SCMP_ACT_ALLOW" {
			t.Fatalf("action %s", group.Action)
		}
		names = append(names, group.Names...)
	}
	return names
}

// systemCalls returns the numbers of system calls on x86-64, as the kernel's header
// has them (Debian: linux-libc-dev, which libc6-dev brings).
func systemCalls(t *testing.T, names []string) []uint32 {
	t.Helper()
	header, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
	if err != nil {
		t.Fatal(err)
	}
	var numbers []uint32
	for _, name := range names {
		_, after, found := strings.Cut(string(header), "#define __NR_"+name+" ")
		if !found {
			t.Fatalf("this machine has no system call %s", name)
		}
		n, err := strconv.ParseUint(strings.Fields(after)[0], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, uint32(n))
	}
	return numbers
}

// confine makes every thread of this process, and what it becomes, get EPERM for all
// but the given system calls (seccomp(2)).
func confine(numbers []uint32) error {
	const number, machine = 0, 4 // offsets in struct seccomp_data
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: machine, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AUDIT_ARCH_X86_64, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: number, Size: 4},
	}
	for _, n := range numbers {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}))
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	load := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&load)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// TestBecomeUnderSeccomp is no test by itself: the others start this binary with it.
// Where nobody asks for it, it checks that the profile names each call once.
func TestBecomeUnderSeccomp(t *testing.T) {
	path := os.Getenv(underSeccomp)
	if path == "" {
		names := allowed(t, seccompProfile)
		slices.Sort(names)
		if once := slices.Compact(slices.Clone(names)); len(once) != len(names) || len(once) == 0 {
			t.Errorf("%d names, %d different", len(names), len(once))
		}
		return
	}
	args := strings.Split(os.Getenv(underSeccomp+"_ARGS"), "\n")
	if err := confine(systemCalls(t, allowed(t, path))); err != nil {
		t.Fatal(err)
	}
	t.Fatal(syscall.Exec(args[0], args, os.Environ()))
}

// confined is a program that runs under a profile.
func confined(t *testing.T, profile, program string, args ...string) lab.Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	absolute, err := filepath.Abs(profile)
	if err != nil {
		t.Fatal(err)
	}
	return lab.Spec{Name: "confined", Path: self, Args: []string{"-test.run", "^TestBecomeUnderSeccomp$"}, Ready: lab.ReadyLine("dnstrace: ready"),
		Env: []string{underSeccomp + "=" + absolute, underSeccomp + "_ARGS=" + strings.Join(append([]string{program}, args...), "\n")}}
}

// receiver is one of OTLP over HTTP that takes everything, and counts.
type receiver struct {
	*httptest.Server
	requests atomic.Int64
}

func newReceiver(t *testing.T, start func(http.Handler) *httptest.Server) *receiver {
	r := &receiver{}
	r.Server = start(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err == nil {
			r.requests.Add(1)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// outputs are a file, a receiver that is known by name, and one over TLS.
func (c *confinedRig) outputs(t *testing.T) []string {
	t.Helper()
	c.byName, c.overTLS = newReceiver(t, httptest.NewServer), newReceiver(t, httptest.NewTLSServer)
	certificate := filepath.Join(c.Dir(), "receiver.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.overTLS.Certificate().Raw})
	if err := os.WriteFile(certificate, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate)
	_, port, _ := strings.Cut(c.byName.Listener.Addr().String(), ":")
	return []string{"--output", "file:" + c.RecordFile(), "--output", "otlp:http://localhost:" + port, "--output", "otlp:" + c.overTLS.URL}
}

// confinedRig is a tracer under the profile that is shipped, and CoreDNS.
type confinedRig struct {
	*rig
	tracer, server  *lab.Process
	metrics         string
	byName, overTLS *receiver
}

func newConfinedRig(t *testing.T) *confinedRig {
	t.Helper()
	c := &confinedRig{rig: &rig{lab.New(t, lab.Config{}), t}, metrics: freeAddr(t)}
	args := append([]string{"run", "--listen", c.RecordSocket(), "--api", c.APISocket(), "--metrics", c.metrics,
		"--kubernetes", "off", "--timeout", "1s"}, c.outputs(t)...)
	var err error
	if c.tracer, err = c.Start(confined(t, seccompProfile, binary(t), args...)); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.tracer.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, string(status), "\nSeccomp:\t2\n")
	if c.server, err = c.StartCoreDNS(corefile(c.Lab, toTracer(c.Lab))); err != nil {
		t.Fatal(err)
	}
	return c
}

// Under the profile that is shipped, the tracer does what it does without.
func TestRunUnderSeccomp(t *testing.T) {
	r := newConfinedRig(t)
	for _, q := range []lab.Query{{Name: "udp.test."}, {Name: "tcp.test.", Network: "tcp"}} {
		r.answered(q)
		if tr := r.trace(q.Name); tr.Query == nil || len(tr.Upstreams) != 1 || len(tr.Gaps) != 0 || tr.Exchange.Client == nil || tr.Exchange.Client.PID != os.Getpid() {
			t.Errorf("%s: query %t, %d upstreams, gaps %v, client %+v", q.Name, tr.Query != nil, len(tr.Upstreams), tr.Gaps, tr.Exchange.Client)
		}
	}
	undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "dropped.test.", Timeout: 500 * time.Millisecond})
	undo()
	if d := r.trace("dropped.test.").Exchange.LastDrop(); d == nil || d.Description != "netfilter hook FORWARD" {
		t.Errorf("drop %+v", d)
	}
	r.silent(t)
	unharmed(t, r.Client("client-b").Bulk(t.Context(), lab.Bulk{Count: 500, Rate: 500}))
	out, err := r.Dnstrace(t.Context(), "explain", "--api", r.APISocket(), "udp.test")
	if err != nil || !strings.Contains(out, "udp.test. A  NOERROR") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.Remove(r.RecordSocket()); err != nil {
		t.Fatal(err)
	}
	appears(t, r.RecordSocket())
	wantAll(t, scrape(t, r.metrics), "dnstrace_events_total ", "process_open_fds ", "go_goroutines ")
	if err := r.tracer.Stop(); err != nil || r.tracer.ExitCode() != 0 || strings.Contains(r.tracer.Stderr(), "not permitted") {
		t.Errorf("it ended with %d, %v\n%s", r.tracer.ExitCode(), err, r.tracer.Stderr())
	}
	for what, got := range map[string]*receiver{"by name": r.byName, "over TLS": r.overTLS} {
		if got.requests.Load() == 0 {
			t.Errorf("the receiver %s got nothing\n%s", what, r.tracer.Stderr())
		}
	}
}

// Under the profile, `check` finds all that it finds without.
func TestCheckUnderSeccomp(t *testing.T) {
	l := lab.New(t, lab.Config{})
	out, err := l.Run(t.Context(), confined(t, seccompProfile, binary(t), "check", "--api", filepath.Join(l.Dir(), "none.sock"), "--kubernetes", "off"))
	if err != nil || strings.Contains(out, "not permitted") {
		t.Errorf("%v\n%s", err, out)
	}
}

// silent wants a server that was never seen to answer to be named by its socket.
func (c *confinedRig) silent(t *testing.T) {
	t.Helper()
	if err := errors.Join(c.server.Stop(), c.server.Start(), c.server.Signal(syscall.SIGSTOP)); err != nil {
		t.Fatal(err)
	}
	c.ask(lab.Query{Name: "hangs.test.", Timeout: time.Second})
	ex := c.trace("hangs.test.").Exchange
	if err := c.server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if ex.Outcome != trace.OutcomeUnanswered || ex.Server == nil || ex.Server.PID != c.server.Pid() {
		t.Errorf("%s, server %+v, expected %d", ex.Outcome, ex.Server, c.server.Pid())
	}
}

// Without one call that it needs the tracer does not start, and says why: so a
// profile that forgets one is noticed.
func TestRunUnderSeccompWithoutBPF(t *testing.T) {
	l := lab.New(t, lab.Config{})
	content, err := os.ReadFile(seccompProfile)
	if err != nil {
		t.Fatal(err)
	}
	less := filepath.Join(l.Dir(), "less.json")
	if err := os.WriteFile(less, []byte(strings.Replace(string(content), `"bpf", `, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := confined(t, less, binary(t), "run", "--listen", l.RecordSocket(), "--api", l.APISocket(), "--metrics", "", "--kubernetes", "off")
	_, err = l.Run(t.Context(), spec)
	if err == nil {
		t.Fatal("it runs without bpf(2)")
	}
	wantAll(t, err.Error(), "exit code 1", "dnstrace:", "operation not permitted")
}
