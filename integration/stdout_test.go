package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// piped is bin/coredns on loopback, whose standard output is a pipe to this test.
type piped struct {
	t      *testing.T
	addr   string
	cmd    *exec.Cmd
	stdout *os.File
}

// startPiped starts CoreDNS with what a server block has beside an answer for every A
// query, and waits until it answers.
func startPiped(t *testing.T, directives string) *piped {
	t.Helper()
	port := lab.FreePorts(t, 1)[0]
	corefile := filepath.Join(t.TempDir(), "Corefile")
	content := fmt.Sprintf(".:%d {\n bind 127.0.0.1\n %s\n template IN A {\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n }\n}\n", port, directives)
	if err := os.WriteFile(corefile, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	p := &piped{t: t, addr: fmt.Sprintf("127.0.0.1:%d", port), stdout: r}
	p.cmd = exec.Command("../bin/coredns", "-conf", corefile)
	p.cmd.Stdout = w
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	w.Close()
	c := &dns.Client{Timeout: 100 * time.Millisecond}
	for end := time.Now().Add(patience); ; {
		if _, _, err = c.Exchange(new(dns.Msg).SetQuestion("first.test.", dns.TypeA), p.addr); err == nil {
			return p
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ask makes lookups from several clients at once; each must get its answer.
func (p *piped) ask(clients, each int) {
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			c := &dns.Client{Timeout: patience}
			for i := range each {
				answer, _, err := c.Exchange(new(dns.Msg).SetQuestion(fmt.Sprintf("host%d-%d.test.", n, i), dns.TypeA), p.addr)
				if err != nil || len(answer.Answer) != 1 {
					p.t.Errorf("lookup %d: %v, %v", i, answer, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// stop ends CoreDNS as an operator does, and waits for it.
func (p *piped) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	killer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
	if !killer.Stop() {
		p.t.Errorf("CoreDNS did not stop within %v", patience)
	}
}

// Standard output is a pipe that is full again and again, and CoreDNS writes its log
// there, too: each line is a record or one of the log, whole.
func TestRecordsBesideTheLog(t *testing.T) {
	p := startPiped(t, "log\n dnstrace")
	var content bytes.Buffer
	done := make(chan error, 1)
	var asked atomic.Bool
	go func() {
		for {
			// Less than a pipe holds, and in the middle of lines.
			_, err := io.CopyN(&content, p.stdout, 48<<10-7)
			if err != nil {
				done <- err
				return
			}
			if !asked.Load() {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	const clients, each = 4, 750
	p.ask(clients, each)
	asked.Store(true)
	p.stop()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	// The last are of the start and the end: the addresses, the versions, the signal.
	logged := regexp.MustCompile(`^\[INFO\] 127\.0\.0\.1:\d+ - \d+ "A IN [^"]* \d+ false 512" NOERROR [a-z,]+ \d+ [\d.e-]+s$`)
	other := regexp.MustCompile(`^(maxprocs: .*|\.:\d+ on 127\.0\.0\.1|CoreDNS-.*|linux/.*|\[INFO\] SIGTERM: .*|\[INFO\] plugin/.*|)$`)
	records, lines := 0, 0
	for line := range bytes.Lines(content.Bytes()) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		_, err := trace.Decode(line)
		switch {
		case err == nil:
			records++
		case logged.Match(line):
			lines++
		case !other.Match(line):
			t.Errorf("no whole line: %q", line)
		}
	}
	if records < clients*each || lines < clients*each {
		t.Errorf("%d records and %d lines of the log for %d lookups", records, lines, clients*each)
	}
}

// Standard output is a pipe that nobody reads: records are lost, answers are not, and
// CoreDNS stops. (With log it would not answer: that waits for the pipe.)
func TestUnreadStdout(t *testing.T) {
	p := startPiped(t, "dnstrace {\n buffer 100\n }")
	p.ask(2, 500)
	p.stop()
	content, err := io.ReadAll(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	records := 0
	for line := range bytes.Lines(content) {
		if bytes.HasPrefix(line, []byte("{")) {
			if _, err := trace.Decode(bytes.TrimSpace(line)); err != nil {
				t.Errorf("%v: %q", err, line)
			}
			records++
		}
	}
	if records == 0 || records >= 1000 {
		t.Errorf("the pipe has %d records of 1000 lookups", records)
	}
}
