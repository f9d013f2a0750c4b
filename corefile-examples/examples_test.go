// Package examples_test starts and queries every Corefile in this folder.
package examples_test

import (
	"bytes"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind" // plugins of the examples
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"

	_ "github.com/dnstrace/dnstrace/plugin"
	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

func TestMain(m *testing.M) {
	i := slices.Index(dnsserver.Directives, "dnstap")
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), i+1, "dnstrace")
	caddy.Quiet = true
	dnsserver.Quiet = true
	os.Exit(m.Run())
}

// question is one that every example records.
const question = "www.corp.example."

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("*.Corefile")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	asked := startServers(t)
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			read := readRecords(t, dir, string(content))
			var lines bytes.Buffer
			log.SetOutput(&lines)
			defer log.SetOutput(os.Stderr)
			corefile := place(string(content), dir, asked)
			instance, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: file, ServerTypeName: "dns"})
			if err != nil {
				t.Fatal(err)
			}
			ask(t, instance.Servers()[0].LocalAddr().String())
			for _, err := range instance.ShutdownCallbacks() {
				t.Error(err)
			}
			if err := instance.Stop(); err != nil {
				t.Error(err)
			}
			q := check(t, read())
			if id := "trace=" + q.TraceID.String(); strings.Contains(corefile, "trace={/dnstrace/trace_id}") && !strings.Contains(lines.String(), id) {
				t.Errorf("the log has no %s:\n%s", id, lines.String())
			}
		})
	}
}

// place moves an example from a machine of its own to this test: ports and
// paths that are free, and what it asks on loopback.
func place(corefile, dir string, asked servers) string {
	return strings.NewReplacer(
		"    bind 169.254.20.10\n", "", ":53 {", ":0 {\n    bind 127.0.0.1", ":53 ", ":0 ",
		":8080", "127.0.0.1:0", ":8181", "127.0.0.1:0", ":9153", "127.0.0.1:0", "lameduck 5s", "lameduck 10ms",
		"slow 200ms", "slow 0s", // so that a lookup is recorded although the rate is low

		"/etc/resolv.conf", asked.plain, "10.96.0.10", asked.plain,
		"10.96.0.0/12", "127.0.0.0/8", "10.0.0.0/16", "127.0.0.0/8",
		"tls://9.9.9.9 tls://149.112.112.112", "tls://"+asked.dot, "tls_servername", "tls "+asked.ca+"\n        tls_servername",
		"ip6.arpa {\n        pods", "ip6.arpa {\n        endpoint "+asked.api+"\n        pods",
		"/run/dnstrace/", dir+"/", "/var/log/dnstrace/", dir+"/",
	).Replace(corefile)
}

// readRecords prepares the output of an example and returns what reads it.
func readRecords(t *testing.T, dir, corefile string) func() []byte {
	t.Helper()
	switch {
	case strings.Contains(corefile, "output unix"):
		addr := &net.UnixAddr{Name: filepath.Join(dir, "records.sock"), Net: "unixgram"}
		conn, err := net.ListenUnixgram("unixgram", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return func() []byte {
			b := make([]byte, 1<<16)
			if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			return b[:n]
		}
	case strings.Contains(corefile, "output file"):
		return func() []byte {
			b, err := os.ReadFile(filepath.Join(dir, "records.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	return captureStdout(t)
}

// captureStdout makes standard output a file while an example runs.
func captureStdout(t *testing.T) func() []byte {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	std := os.Stdout
	os.Stdout = f
	return func() []byte {
		os.Stdout = std
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func ask(t *testing.T, addr string) {
	t.Helper()
	c := &dns.Client{Timeout: 5 * time.Second}
	answer, _, err := c.Exchange(new(dns.Msg).SetQuestion(question, dns.TypeA), addr)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Answer) != 1 {
		t.Errorf("the answer is\n%s", answer)
	}
}

// check looks for the record of the question, and returns it.
func check(t *testing.T, content []byte) *trace.Query {
	t.Helper()
	for line := range bytes.Lines(content) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue // of CoreDNS's own log
		}
		rec, err := trace.Decode(bytes.TrimSpace(line))
		if err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		if q, ok := rec.(*trace.Query); ok && q.QName == question {
			if q.Cache != trace.CacheMiss || q.AnsweredBy != "forward" {
				t.Errorf("cache %s, answered by %s", q.Cache, q.AnsweredBy)
			}
			return q
		}
	}
	t.Fatalf("no record of %s in\n%s", question, content)
	return nil
}
