package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A server that hangs: it has answered nothing since it was stopped, its queries
// wait in its socket, and it is named all the same, with its cgroup. One that is not
// there has no name.
func TestWhoIsSilent(t *testing.T) {
	servers := newGroup(t, "silent")
	r := tracerOnly(t, "--timeout", "1s")
	server := startIn(t, r, servers, "dnsmasq")
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "hangs.test.", Timeout: time.Second})
	ex := r.trace("hangs.test.").Exchange
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	want := trace.Endpoint{Node: ex.Node, Process: "dnsmasq", PID: server.Pid(), Cgroup: servers.path}
	if ex.Outcome != trace.OutcomeUnanswered || ex.Server == nil || *ex.Server != want {
		t.Errorf("%s, server %+v, expected %+v", ex.Outcome, ex.Server, want)
	}

	undo, err := r.NoListener(server)
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	r.ask(lab.Query{Name: "gone.test.", Timeout: time.Second})
	if ex := r.trace("gone.test.").Exchange; ex.Server != nil {
		t.Errorf("nobody listens: server %+v", ex.Server)
	}
}
