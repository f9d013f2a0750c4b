package dnstrace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// fate is what became of the records of an output: how many were written, and
// lost by cause, as the metrics say.
type fate struct {
	written float64
	lost    map[string]float64
}

// fateOf reads the metrics of an output.
func fateOf(t *testing.T, output string) fate {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	f := fate{lost: make(map[string]float64)}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch {
			case labels["output"] != output || m.GetCounter().GetValue() == 0:
			case family.GetName() == "coredns_dnstrace_records_total":
				f.written += m.GetCounter().GetValue()
			case family.GetName() == "coredns_dnstrace_records_dropped_total":
				f.lost[labels["cause"]] += m.GetCounter().GetValue()
			}
		}
	}
	return f
}

// all is the number of records that are accounted for.
func (f fate) all() float64 {
	sum := f.written
	for _, n := range f.lost {
		sum += n
	}
	return sum
}

// since returns what happened after an earlier reading.
func (f fate) since(before fate) fate {
	lost := make(map[string]float64)
	for cause, n := range f.lost {
		if n > before.lost[cause] {
			lost[cause] = n - before.lost[cause]
		}
	}
	return fate{f.written - before.written, lost}
}

// askMany makes lookups from several clients at once. Each must get its answer.
func askMany(t *testing.T, s *server, clients, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			c := &dns.Client{Timeout: 15 * time.Second}
			conn, err := c.Dial(s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range each {
				name := fmt.Sprintf("host%d-%d.example.org.", n, i)
				answer, _, err := c.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), conn)
				if err != nil {
					t.Error(err)
					return
				}
				if got := fmt.Sprint(answer.Answer); got != "["+name+"\t60\tIN\tA\t192.0.2.1]" || answer.Rcode != dns.RcodeSuccess {
					t.Errorf("%s: the answer is\n%s", name, answer)
				}
			}
		})
	}
	wg.Wait()
}

// withOutputs is a server that answers by itself; it has one output more than the given ones: the file that works.
func withOutputs(t *testing.T, buffer int, outputs string) *server {
	return start(t, fmt.Sprintf(`.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
			%s
			buffer %d
		}
		template IN A {
			answer "{{ .Name }} 60 IN A 192.0.2.1"
		}
	}`, outputs, buffer))
}

// One server with every kind of socket that fails, beside a file that works: all
// answers are there, and every output accounts for every lookup.
func TestFailingOutputs(t *testing.T) {
	dir := t.TempDir()
	deaf, absent, closed := filepath.Join(dir, "deaf"), filepath.Join(dir, "absent"), filepath.Join(dir, "closed")
	listen(t, deaf) // and never reads
	tracer := listen(t, closed)
	const buffer, clients, each = 2000, 4, 1000
	wants := map[string]string{
		"unix " + deaf: causeQueueFull, "unix " + absent: causeNoReceiver, "unix " + closed: causeNoReceiver,
	}
	before := make(map[string]fate)
	var directives bytes.Buffer
	for output := range wants {
		before[output] = fateOf(t, output)
		fmt.Fprintf(&directives, "output %s\n", output)
	}
	s := withOutputs(t, buffer, directives.String())
	askMany(t, s, 1, 1)
	if records := decode(t, receive(t, tracer)); len(records) != 1 {
		t.Errorf("the tracer got %d records", len(records))
	}
	tracer.Close() // as a tracer does that is killed: its socket's file stays
	askMany(t, s, clients, each)
	s.stop()

	const lookups = 1 + clients*each
	for output, cause := range wants {
		f := fateOf(t, output).since(before[output])
		if f.all() != lookups || f.lost[cause] == 0 {
			t.Errorf("%s: %v written and %v lost of %d lookups", output, f.written, f.lost, lookups)
		}
	}
	f := fateOf(t, "file "+s.records)
	if n := len(readRecords(t, s.records)); f.written != float64(n) || f.all() != lookups || n <= lookups-buffer {
		t.Errorf("the file has %d records; %v written and %v lost of %d lookups", n, f.written, f.lost, lookups)
	}
}

// A tracer that is killed costs the records of its absence, each of them counted,
// and none once it is back.
func TestClosedSocketComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.sock")
	const rounds, clients, each = 3, 2, 50
	s := withOutputs(t, 2000, "output unix "+path)
	for round := range rounds {
		tracer := listen(t, path)
		time.Sleep(redialDelay)
		askMany(t, s, clients, each)
		for received := 0; received < clients*each; {
			received += len(decode(t, receive(t, tracer)))
		}
		tracer.Close()
		askMany(t, s, clients, each)
		eventually(t, func() bool { return fateOf(t, "unix "+path).all() == float64(2*clients*each*(round+1)) })
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	const half = rounds * clients * each
	if f := fateOf(t, "unix "+path); f.written != half || f.lost[causeNoReceiver] != half || f.all() != 2*half {
		t.Errorf("%v written and %v lost of %d lookups", f.written, f.lost, 2*half)
	}
	if n := len(readRecords(t, s.records)); n != 2*half {
		t.Errorf("the file has %d records of %d lookups", n, 2*half)
	}
}
