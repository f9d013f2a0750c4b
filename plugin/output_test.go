package dnstrace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func dropped(output, cause string) float64 {
	return value(recordsDropped.WithLabelValues(output, cause))
}

func written(output string) float64 {
	return value(recordsWritten.WithLabelValues(output, "query"))
}

func value(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func whoami(t *testing.T, output string) *server {
	return start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n "+output+"\n buffer 20\n }\n whoami\n}")
}

// Two server blocks with one file do not tear each other's lines, and a stop
// writes what is left.
func TestSharedFileAndFlush(t *testing.T) {
	const block = ` {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		whoami
	}
	`
	s := start(t, "a.org:0"+block+"b.org:0"+block)
	var wg sync.WaitGroup
	for _, zone := range []string{"a.org.", "b.org."} {
		for range 4 {
			wg.Go(func() {
				c := &dns.Client{Timeout: 5 * time.Second}
				for range 250 {
					if _, _, err := c.Exchange(new(dns.Msg).SetQuestion(zone, dns.TypeA), s.addr); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	s.stop()
	if n := len(readRecords(t, s.records)); n != 2000 {
		t.Errorf("%d records, want 2000", n)
	}
	if info, err := os.Stat(s.records); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := written("file " + s.records); got != 2000 {
		t.Errorf("the metric says %v", got)
	}
}

// Standard output that nobody reads, a pipe, holds up neither a query nor the end:
// records are lost, and counted.
func TestBlockedPipe(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	config := outputConfig{kind: outputStdout, path: t.Name()}
	before := fateOf(t, config.String())
	o := newOutput(config, openStream(writer, int(writer.Fd())), 100)
	const records = 500
	for range records {
		o.push(longRecord(500))
	}
	begin := time.Now()
	o.flush()
	if d := time.Since(begin); d > 3*flushTimeout {
		t.Errorf("stopping took %s", d)
	}
	f := fateOf(t, config.String()).since(before)
	if f.lost[causeQueueFull] == 0 || f.all() != records {
		t.Errorf("%v lost and %v written of %d", f.lost, f.written, records)
	}
	writer.Close()
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(content, []byte{'\n'}); float64(got) != f.written || !bytes.HasSuffix(content, []byte{'\n'}) {
		t.Errorf("the pipe holds %d records, the metric says %v", got, f.written)
	}
}

func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive returns the next datagram.
func receive(t *testing.T, c *net.UnixConn) []byte {
	t.Helper()
	b := make([]byte, 1<<18)
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// The tracer may come late, go, and come back.
func TestUnixTracerComesAndGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	name := "unix " + path
	s := whoami(t, "output unix "+path)
	s.ask("lost.org.", dns.TypeA)
	eventually(t, func() bool { return dropped(name, causeNoReceiver) == 1 })

	for i := range 2 {
		tracer := listen(t, path)
		time.Sleep(redialDelay)
		s.ask(fmt.Sprintf("seen%d.org.", i), dns.TypeA)
		got := receive(t, tracer)
		records := decode(t, got)
		if len(records) != 1 || !bytes.Contains(got, fmt.Appendf(nil, `"qname":"seen%d.org."`, i)) || got[len(got)-1] != '\n' {
			t.Errorf("received %s", got)
		}
		tracer.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if got := dropped(name, causeNoReceiver); got != 1 {
		t.Errorf("%v records lost, want 1", got)
	}
}

// A tracer that does not read makes the queue fill, and gets what was kept when
// it reads again.
func TestUnixBlocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	name := "unix " + path
	tracer := listen(t, path)
	s := whoami(t, "output unix "+path)
	asked := 0.0
	// Every batch is a datagram; the kernel's queue holds some.
	for dropped(name, causeQueueFull) == 0 {
		s.ask("example.org.", dns.TypeA)
		if asked++; asked > 100000 {
			t.Fatal("the socket never blocks")
		}
	}
	for received := 0.0; received+dropped(name, causeQueueFull) < asked; {
		received += float64(len(decode(t, receive(t, tracer))))
	}
	eventually(t, func() bool { return written(name)+dropped(name, causeQueueFull) == asked })
	for range 10 * 300 {
		s.ask("example.org.", dns.TypeA)
	}
	begin := time.Now()
	s.stop()
	if d := time.Since(begin); d > 3*flushTimeout {
		t.Errorf("stopping took %s", d)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range 400 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("it did not happen")
}

// A datagram holds whole lines, and no more than datagramLimit.
func TestDatagramLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	tracer := listen(t, path)
	s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output unix "+path+"\n }\n whoami\n}")
	const queries = 400
	go func() {
		c := &dns.Client{Timeout: 5 * time.Second}
		for range queries {
			if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), s.addr); err != nil {
				t.Error(err)
			}
		}
	}()
	datagrams := 0
	for received := 0; received < queries; datagrams++ {
		b := receive(t, tracer)
		if len(b) > datagramLimit || b[len(b)-1] != '\n' {
			t.Fatalf("a datagram of %d bytes ends in %q", len(b), b[len(b)-1])
		}
		received += len(decode(t, b))
	}
	if datagrams > queries/4 {
		t.Errorf("%d datagrams for %d records", datagrams, queries)
	}
}

// Standard output on a pipe is written without blocking, a whole line at a time, and
// keeps its own mode. (That CoreDNS's own log beside it tears no line is
// TestRecordsBesideTheLog's matter, in integration.)
func TestStreamPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := int(w.Fd()) // which makes it block, as standard output does
	defer w.Close()
	sink := openStream(w, fd)
	line := []byte(strings.Repeat("x", pipeLimit-1) + "\n")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var n int
	for {
		done, err := sink.write(ctx, line)
		if err != nil {
			break
		}
		n += done
	}
	if sink.file == w || sink.limit() != pipeLimit {
		t.Errorf("the pipe was not opened again")
	}
	if n == 0 {
		t.Error("no line is written")
	}
	if err := sink.file.Close(); err != nil {
		t.Error(err)
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 || flags&syscall.O_NONBLOCK != 0 {
		t.Errorf("flags %o, %v", flags, errno)
	}
}

// A reload keeps the output, whether it works or fails.
func TestReload(t *testing.T) {
	s := whoami(t, "output file $RECORDS")
	s.ask("one.org.", dns.TypeA)
	corefile := func(text string) caddy.Input {
		return caddy.CaddyfileInput{Contents: []byte(s.expand(text)), Filepath: "Corefile", ServerTypeName: "dns"}
	}
	port := s.addr[strings.LastIndexByte(s.addr, ':'):]
	good := `.` + port + ` {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			output file ` + s.records + `.other
		}
		template IN A {
			rcode NXDOMAIN
		}
	}
	`
	// By the time the other block fails to start, this one has its outputs.
	bad := good + "unstartable.org" + port + " {\n unstartable\n }"
	if _, err := s.instance.Restart(corefile(bad)); err == nil {
		t.Fatal("the reload did not fail")
	}
	eventually(t, func() bool { return openFiles(t, s.records) <= 2 && openFiles(t, s.records+".other") <= 1 })
	s.ask("two.org.", dns.TypeA)
	instance, err := s.instance.Restart(corefile(good))
	if err != nil {
		t.Fatal(err)
	}
	s.instance = instance
	s.ask("three.org.", dns.TypeA)
	s.stop()
	records := readRecords(t, s.records)
	other := readRecords(t, s.records+".other")
	if len(records) != 3 || len(other) != 1 {
		t.Errorf("%d and %d records", len(records), len(other))
	}
}
