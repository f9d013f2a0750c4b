package dnstrace

import (
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"
)

// openOutputs returns how many outputs have a writer.
func openOutputs() int { return strings.Count(ownGoroutines(), "plugin.(*output).run(") }

// A reload that brings dnstrace and fails leaves no output open, though nobody tells the
// plugins that started.
func TestFailedReloadThatBringsDnstrace(t *testing.T) {
	before := openOutputs()
	s := start(t, ".:0 {\n bind 127.0.0.1\n whoami\n}")
	for range 2 {
		_, err := s.instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(s.expand(
			".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n unstartable\n whoami\n}"))})
		if err == nil {
			t.Fatal("the reload did not fail")
		}
		eventually(t, func() bool { return openOutputs() == before })
	}
}

// CoreDNS answers for a while after it has told the plugins to shut down: what it answers
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
	eventually(t, func() bool { return openOutputs() == 0 })
}
