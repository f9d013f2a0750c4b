package integration

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// erratic is a server block whose plugin takes its time.
func erratic(l *lab.Lab, zone string, delay time.Duration) string {
	return fmt.Sprintf("%s {\n %s\n erratic {\n  delay 1 %s\n }\n}\n", zone, recording(l), delay)
}

// A plugin that takes its time, and one that does not take long.
func TestDiagnoseServerSlow(t *testing.T) {
	r := newFaultRig(t, func(l *lab.Lab) string {
		return erratic(l, "slow.test", 700*time.Millisecond) + erratic(l, "brisk.test", 200*time.Millisecond)
	})
	r.answered(lab.Query{Name: "www.slow.test."})
	r.answered(lab.Query{Name: "www.brisk.test."})
	r.finds("www.slow.test.", "server-slow", "erratic")
	r.spares("server-slow", "www.brisk.test.", 1)
	r.spares("server-overloaded", "www.slow.test.", 1)
	r.keep("server-slow", "slow.test")
	r.keep("server-slow-not", "brisk.test")
}

// A server that gets no CPU: queries wait in its socket, and those that find no
// room there are dropped. The process is stopped for a while, which is what
// throttling does to it.
func TestDiagnoseServerStarved(t *testing.T) {
	r := newFaultRig(t, plainForwarding, "--timeout", "3s")
	r.answered(lab.Query{Name: "before.wait.test."})

	if err := r.server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	woken := time.AfterFunc(700*time.Millisecond, func() { _ = r.server.Signal(syscall.SIGCONT) })
	r.answered(lab.Query{Name: "waited.test."})
	woken.Stop()
	r.finds("waited.test.", "server-overloaded", "waited", r.Host(lab.CoreDNS).Netns)
	r.spares("server-slow", "waited.test.", 1)
	r.spares("server-overloaded", "before.wait.test.", 1)
	r.spares("dropped-receive-buffer", "waited.test.", 1)
	r.keep("server-overloaded", "waited.test")
	r.keep("server-overloaded-not", "before.wait.test")

	if err := r.server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The usual receive buffer of 208 KiB holds some 270 queries.
	r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: 600, Rate: 1e6, InFlight: 600, Query: func(i int) lab.Query {
		return lab.Query{Name: fmt.Sprintf("n%d.burst.test.", i), Timeout: 500 * time.Millisecond}
	}})
	if err := r.server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	dropped, read := r.splitBurst("burst.test.", 600)
	wantAll(t, evidence(t, dropped, "dropped-receive-buffer"), "SOCKET_RCVBUFF", r.Host(lab.CoreDNS).Netns)
	if slices.Contains(findings(read), "dropped-receive-buffer") {
		t.Errorf("%s was read, and has %v", read.QName, findings(read))
	}
	r.keep("dropped-receive-buffer", dropped.QName)
	r.keep("dropped-receive-buffer-not", read.QName)
}

// splitBurst waits for the traces of n lookups below a zone and returns one whose
// query was dropped and one whose query was not.
func (r *faultRig) splitBurst(zone string, n int) (dropped, read *trace.Trace) {
	r.t.Helper()
	count := 0
	for end := time.Now().Add(patience); count < n && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		count = 0
		for _, tr := range r.allTraces() {
			if !dns.IsSubDomain(zone, tr.QName) {
				continue
			}
			count++
			if tr.Query == nil {
				dropped = tr
			} else {
				read = tr
			}
		}
	}
	if dropped == nil || read == nil {
		r.t.Fatalf("of %d lookups, none was dropped, or all were", count)
	}
	return dropped, read
}

// A name that no server block has, a client that acl turns away; and an upstream
// that refuses, which is not the server's doing.
func TestDiagnoseRefusedByServer(t *testing.T) {
	r := newFaultRig(t, func(l *lab.Lab) string {
		return fmt.Sprintf("served.test {\n %s\n forward . %s\n}\nclosed.test {\n %s\n acl {\n  block\n }\n forward . %s\n}\n",
			recording(l), l.Upstream(0).V4(), recording(l), l.Upstream(0).V4())
	})
	r.answered(lab.Query{Name: "www.closed.test."})
	r.answered(lab.Query{Name: "www.unserved.test."})
	r.answered(lab.Query{Name: "www.served.test."})
	r.finds("www.closed.test.", "refused-by-server", "answered by acl")
	// Refused before any plugin: only the wire shows it.
	r.finds("www.unserved.test.", "refused-by-server", "REFUSED")
	r.spares("refused-by-server", "www.served.test.", 1)
	r.keep("refused-by-server", "closed.test", "unserved.test")
	r.keep("refused-by-server-not", "served.test")
}
