package dnstrace

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"
)

// openFiles returns how many descriptors of this process lead to a file.
func openFiles(t *testing.T, path string) (n int) {
	t.Helper()
	runtime.GC() // which closes what nobody uses any more
	const fds = "/proc/self/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && target == path {
			n++
		}
	}
	return n
}

// Reloads that bring dnstrace and fail leave no more than one output open, though nobody tells the
// plugins that started: Caddy keeps hold of the last instance that failed.
func TestFailedReloadThatBringsDnstrace(t *testing.T) {
	s := start(t, ".:0 {\n bind 127.0.0.1\n whoami\n}")
	for range 3 {
		_, err := s.instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(s.expand(
			".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n unstartable\n whoami\n}"))})
		if err == nil {
			t.Fatal("the reload did not fail")
		}
		eventually(t, func() bool { return openFiles(t, s.records) <= 1 })
	}
}

// CoreDNS answers for a while after the plugins have shut down: what it answers
// then is recorded too.
func TestRecordsAtTheEnd(t *testing.T) {
	s := whoami(t, "output file $RECORDS")
	s.ask("before.org.", dns.TypeA)
	for _, err := range s.instance.ShutdownCallbacks() {
		t.Error(err)
	}
	const queries = 10
	for range queries {
		s.ask("after.org.", dns.TypeA)
	}
	if err := s.instance.Stop(); err != nil {
		t.Error(err)
	}
	s.stopped = true
	// Here the process ends.
	if n := len(readRecords(t, s.records)); n != 1+queries {
		t.Errorf("%d of %d records", n, 1+queries)
	}
	if lost := dropped("file "+s.records, causeClosed); lost != 0 {
		t.Errorf("%v records are lost", lost)
	}
}

// The files of earlier instances are closed, although only the garbage collector does so. Caddy holds on to the last
// instances. The process is one of its own: once the reload plugin of CoreDNS 1.13 or 1.14 is used, it holds on to every
// instance of the process until its interval has passed.
func TestReloadsCloseFiles(t *testing.T) {
	const own = "DNSTRACE_OWN_PROCESS"
	if os.Getenv(own) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), own+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := whoami(t, "output file $RECORDS")
	port := s.addr[strings.LastIndexByte(s.addr, ':'):]
	for range 8 {
		time.Sleep(200 * time.Millisecond) // a server that is stopped before it has begun goes on for ever, with its files
		instance, err := s.instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(s.expand(
			"." + port + " {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n whoami\n}"))})
		if err != nil {
			t.Fatal(err)
		}
		s.instance = instance
		s.ask("example.org.", dns.TypeA)
	}
	eventually(t, func() bool { return openFiles(t, s.records) <= 4 })
}
