package dnstrace

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"
)

// stuckSink is an output that takes lines when the test lets it, and knows no deadline,
// like a socket on standard output.
type stuckSink struct{ let chan struct{} }

func newStuckSink() *stuckSink { return &stuckSink{make(chan struct{})} }

func (s *stuckSink) write(_ context.Context, lines []byte) (int, error) {
	<-s.let
	return len(lines), nil
}

func (s *stuckSink) limit() int { return pipeLimit }

// longRecord is a record whose line has some more bytes than size.
func longRecord(size int) *record {
	q := &query{plugin: new(Dnstrace), rcode: notSent, errText: strings.Repeat("x", size)}
	q.ident = &q.own
	q.record.init(q)
	return &q.record
}

// No query waits for an output that takes nothing, ever: in a bubble the clock
// stands still as long as one goroutine can run, so it would tell of the shortest
// wait, and a wait without end is a deadlock. No machine is too slow for that.
func TestNoQueryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const buffer, queries = 300, 2000
		config := outputConfig{kind: outputFile, path: t.Name()}
		before := fateOf(t, config.String())
		sink := newStuckSink()
		o := newOutput(config, sink, buffer)
		r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		zones := []string{"."}
		d := &Dnstrace{zones: zones, serverZones: zones, outputs: []*output{o}, sample: 1}
		chained(d, answering{new(dns.Msg).SetReply(r)})
		serve := func(n int) {
			start := time.Now()
			for range n {
				if _, err := d.ServeDNS(context.Background(), discarding{}, r); err != nil {
					t.Fatal(err)
				}
			}
			if waited := time.Since(start); waited != 0 {
				t.Errorf("%d queries waited %v", n, waited)
			}
		}
		serve(buffer / 2)
		time.Sleep(2 * batchDelay) // now the writer has some, and is stuck
		serve(queries)
		close(sink.let)
		o.flush()
		f := fateOf(t, config.String()).since(before)
		if f.written != buffer || f.lost[causeQueueFull] != buffer/2+queries-buffer || f.all() != buffer/2+queries {
			t.Errorf("%v written and %v lost", f.written, f.lost)
		}
		time.Sleep(2 * batchDelay) // the writer ends
	})
}

// What an output holds that is still stuck when CoreDNS has waited long enough is
// lost, and counted as that, once: also if it is taken after all.
func TestStuckOutputCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := outputConfig{kind: outputStdout, path: t.Name()}
		sink := newStuckSink()
		o := newOutput(config, sink, 100)
		long := longRecord(pipeLimit / 2)
		push := func(n int) {
			for range n {
				o.push(long)
			}
		}
		push(3) // two chunks
		time.Sleep(2 * batchDelay)
		sink.let <- struct{}{} // the first is written
		push(4)
		begin := time.Now()
		o.flush()
		if took := time.Since(begin); took > 2*flushTimeout {
			t.Errorf("closing took %v", took)
		}
		push(1)
		close(sink.let)
		time.Sleep(2 * batchDelay) // the writer ends
		if f := fateOf(t, config.String()); f.written != 1 || f.lost[causeClosed] != 7 || f.all() != 8 {
			t.Errorf("%v written and %v lost", f.written, f.lost)
		}
	})
}

// deafSockets makes sockets that nobody reads.
func deafSockets(t *testing.T, n int) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprint("deaf", i))
		listen(t, path)
		paths = append(paths, path)
	}
	return paths
}

// Server blocks with outputs of their own that are all blocked: what the first takes
// to give up is what all take, in a reload and at the end.
func TestBlockedOutputsOfBlocks(t *testing.T) {
	const blocks, queries = 4, 400
	corefile := func(port string, outputs []string) string {
		var c strings.Builder
		for i := range blocks {
			output := ""
			if i < len(outputs) {
				output = "output unix " + outputs[i]
			}
			fmt.Fprintf(&c, "zone%d.org:%s {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n %s\n }\n whoami\n}\n", i, port, output)
		}
		return c.String()
	}
	first, second := deafSockets(t, blocks), deafSockets(t, blocks)
	s := start(t, corefile("0", first))
	port := s.addr[strings.LastIndexByte(s.addr, ':')+1:]
	fill := func() {
		for i := range blocks {
			for range queries {
				s.ask(fmt.Sprintf("zone%d.org.", i), dns.TypeA)
			}
		}
	}
	for _, outputs := range [][]string{second, nil} {
		fill()
		begin := time.Now()
		instance, err := s.instance.Restart(caddy.CaddyfileInput{
			Contents: []byte(s.expand(corefile(port, outputs))), Filepath: "Corefile", ServerTypeName: "dns"})
		if err != nil {
			t.Fatal(err)
		}
		s.instance = instance
		if took := time.Since(begin); took > 3*flushTimeout {
			t.Errorf("the reload took %v", took)
		}
	}
	// The last Corefile has none that is blocked.
	last := deafSockets(t, blocks)
	end := start(t, corefile("0", last))
	s.stop()
	s = end
	fill()
	begin := time.Now()
	s.stop()
	if took := time.Since(begin); took > 3*flushTimeout {
		t.Errorf("stopping took %v", took)
	}
	for _, path := range append(append(first, second...), last...) {
		if f := fateOf(t, "unix "+path); f.all() != queries || f.written == queries {
			t.Errorf("%s: %v written and %v lost of %d", filepath.Base(path), f.written, f.lost, queries)
		}
	}
}
