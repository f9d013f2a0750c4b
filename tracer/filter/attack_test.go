package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// long is a record of the kind that a hostile file, or a hostile server, can hold: lists
// and texts of megabytes.
func long(lists, texts int) *trace.Trace {
	t := lookup()
	text := strings.Repeat("a", texts)
	t.QName = text
	t.Exchange.Client = &trace.Endpoint{Process: strings.Repeat("ä", texts/2)}
	sighting := trace.Sighting{Device: trace.Device{IfName: "eth0"}, Direction: trace.DirectionTX, Src: netip.MustParseAddrPort("192.0.2.1:53")}
	sightings := make([]trace.Sighting, lists)
	for i := range sightings {
		sightings[i] = sighting
	}
	t.Exchange.Path = trace.PathOf(sightings...)
	t.Upstreams, t.Gaps, t.Diagnosis = nil, nil, nil
	for i := range lists {
		t.Upstreams = append(t.Upstreams, trace.Upstream{Join: trace.JoinNone, Attempt: &trace.Attempt{Attempt: i, Error: text}})
		t.Gaps = append(t.Gaps, text)
	}
	t.Diagnosis = []trace.Finding{{Code: "x", Evidence: t.Gaps}}
	return t
}

// processorTime returns what this process took so far, however busy the machine is.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// measured runs something, and fails the test where it takes long or much.
func measured(t *testing.T, what string, run func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := processorTime(t)
	run()
	took := processorTime(t) - start
	runtime.ReadMemStats(&after)
	// The dearest take 100 ms.
	if allocated := after.TotalAlloc - before.TotalAlloc; took > 3*time.Second || allocated > 128<<20 {
		t.Errorf("%s: took %s and %d MB", what, took, allocated>>20)
	}
}

// dear are expressions that would take seconds, or all memory, on some record.
var dear = []string{
	`any(exchange.path, any(exchange.path, any(exchange.path, any(exchange.path, .ifname == "x"))))`,
	`all(1..1000, all(1..1000, all(1..1000, # > 0)))`,
	`rcode == "zzz" or all(1..1000, all(1..1000, all(1..1000, # > 0)))`,
	`len(map(1..1000, map(1..1000, map(1..1000, #)))) > 0`,
	`count(map(1..1000, filter(gaps, true)), len(#) > 0) > 0`,
	`all(gaps, all(gaps, # contains qname))`,
	`all(gaps, all(gaps, # matches "(a|a|a|a)*(a|aa)+$"))`,
	`qname matches "(a?){100}(a?){100}(a?){100}a{100}$"`,
	`all(gaps, qname matches "(.*)*x")`,
	`all(gaps, lower(upper(qname)) != nil)`,
	`all(gaps, len(qname) > 0)`,
	`all(gaps, # == qname)`,
	`all(gaps, # <= qname)`,
	`all(gaps, # in gaps)`,
	`all(gaps, exchange == exchange)`,
	`all(gaps, diagnosis in [diagnosis])`,
	`all(gaps, upstreams != upstreams or true)`,
	`all(gaps, string(exchange) != "")`,
	`all(gaps, len(split(qname, "")) > 0)`,
	`all(gaps, max(map(gaps, len(#))) > 0)`,
	`all(gaps, median(map(gaps, len(#))) > 0)`,
	`all(1..1000, all(1..1000, date("2026-01-01") != nil))`,
	`all(1..1000, all(1..1000, duration("1h") != nil))`,
	`let a = qname + qname; let b = a + a; let c = b + b; let d = c + c; let e = d + d; let f = e + e; let g = f + f; let h = g + g; len(h + h + h + h) > 0`,
	`(` + strings.Repeat(`qname contains "b" or `, 150) + `true) and all(gaps, ` + strings.Repeat(`# contains "b" or `, 60) + `true)`,
	`count(upstreams, count(upstreams, .attempt.error == "x") > 0) > 0`,
	`any(gaps, any(split(#, "a"), any(split(qname, "a"), # == "x")))`,
	`all(1..1000, now().Format(qname) != "")`,
	`all(1..1000, time.Format(qname) != "")`,
	`all(1..200, all(1..200, now().AddDate(1, 2, 3).Format("2006") != ""))`,
	`all(1..1000, date("2026-01-01", "2006-01-02", "America/New_York") != nil)`,
	`trim(exchange.client.process, qname) != ""`,
	`all(gaps, trim(#, qname) != "")`,
	listOfLists + `max(h) == 1`,
	listOfLists + `min(1, h) == 1`,
	listOfLists + `mean(h, h) == 1`,
	listOfLists + `median(1, h) == 1`,
	listOfLists + `sum(h) == 1`,
	listOfLists + `h == [h]`,
	listOfLists + `string(h) == ""`,
	listOfLists + `h in [h]`,
	listOfLists + `get(h, 0) == nil and first(h) == last(h)`,
}

// listOfLists begins an expression whose list h holds others, a number in ten million places.
const listOfLists = "let a = [[1]]; let b = [a,a,a,a,a,a,a,a,a,a]; let c = [b,b,b,b,b,b,b,b,b,b]; let d = [c,c,c,c,c,c,c,c,c,c]; " +
	"let e = [d,d,d,d,d,d,d,d,d,d]; let f = [e,e,e,e,e,e,e,e,e,e]; let g = [f,f,f,f,f,f,f,f,f,f]; let h = [g,g,g,g,g,g,g,g,g,g]; "

// Whatever the expression and the record, a filter is refused, gives an answer, or says
// that it takes too much, in a bounded time and memory.
func TestDearFilters(t *testing.T) {
	records := []trace.Record{long(100, 100), long(3000, 1000), long(2, 4<<20), long(100_000, 1), dropped(), query()}
	for _, expression := range dear {
		var f *Filter
		measured(t, "compiling "+expression, func() { f, _ = Compile(expression) })
		if f == nil {
			continue // it was refused
		}
		for i, r := range records {
			measured(t, fmt.Sprintf("%s on record %d", expression, i), func() {
				if _, err := f.Match(r); err != nil && !errors.Is(err, ErrTooExpensive) && !strings.Contains(err.Error(), "put together") {
					t.Errorf("%s on record %d: %v", expression, i, err)
				}
			})
		}
	}
}

// What has no bound is refused, and the error says what and where.
func TestRefused(t *testing.T) {
	for _, tc := range []struct{ expression, want string }{
		{`len(repeat(qname, 1000000)) > 0`, "column 5: repeat: no function of filters, since what it costs has no bound; there are abs all any"},
		{`reduce(1..100, #acc + #acc, "x") == ""`, "reduce: no function of filters"},
		{`replace(qname, "", "xxxx") == ""`, "replace: no function"},
		{`join(gaps, qname) == ""`, "join: no function"},
		{`len(uniq(gaps)) > 0`, "uniq: no function"},
		{`toJSON(exchange) == ""`, "toJSON: no function"},
		{`fromJSON(qname) == ""`, "fromJSON: no function"},
		{`len(sortBy(upstreams, .join)) > 0`, "sortBy: no function"},
		{`any(1..1000000, # == id)`, "column 6: ..: expected two numbers with at most 1000 between them"},
		{`any(1..id, # == 5)`, "expected two numbers"},
		{`qname matches rcode`, "column 15: matches: expected a pattern in quotes"},
		{`qname matches ("a" + rcode)`, "expected a pattern in quotes"},
		{`qname matches "((\\pL{10}){10}){10}"`, "the pattern has "},
		{`qname matches "("`, "missing closing )"},
		{`$env["rcode"] == "x"`, "column 1: $env: name the field itself"},
		{`any([$env], .rcode == "x")`, "$env: name the field itself"},
		{`all(1..1000, all(1..1000, # > 0))`, "one record takes more than 250000 steps"},
		{strings.Repeat("qname == \"x\" or ", 300) + "true", "bytes, more than 4096: ask for less"},
		{strings.Repeat("id==1 or ", 400) + "true", "filter: it is too long or too deep"},
		{strings.Repeat("not ", 1020) + "true", "filter: it is too long or too deep"},
	} {
		measured(t, tc.expression, func() {
			_, err := Compile(tc.expression)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.60s: got %v, want %q", tc.expression, err, tc.want)
			}
		})
	}
}

// What people ask for is neither refused nor too dear, on the largest record that a
// tracer makes.
func TestUsualFiltersAreCheap(t *testing.T) {
	r := long(30, 200)
	for i := range r.Upstreams {
		r.Upstreams[i].Exchange = lookup().Exchange
		r.Upstreams[i].Upstreams = []trace.Upstream{{Exchange: lookup().Exchange}, {Exchange: lookup().Exchange}}
	}
	for _, expression := range []string{
		`rcode == "NXDOMAIN" and client.namespace == "demo"`, `qname matches "(?i)^api[.-].*\\.example\\.(com|org)\\.$" and duration_seconds > 0.5`,
		`any(upstreams, any(.upstreams, any(.exchange.path, .ifname startsWith "eth")))`, `len(split(qname, ".")) > 5`, `outcome in ["dropped", "unanswered"]`,
		`any(diagnosis, any(.evidence, # contains "drop"))`, `now() - time < duration("5m")`, `exchange.id in 1..500`, `lower(qname) endsWith "-x"`,
		`max(map(upstreams, len(.exchange.path))) > 3`, `client == server`,
	} {
		f, err := Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		b := &budget{left: maxSteps}
		if _, err := f.run(r, b); err != nil || maxSteps-b.left > maxSteps/10 {
			t.Errorf("%s: %d steps, %v", expression, maxSteps-b.left, err)
		}
	}
}

// A filter that is bounded over time leaves records out, rather than take more of a
// node's time; the next second it looks at them again.
func TestWithin(t *testing.T) {
	f, err := Compile(`any(upstreams, any(exchange.path, .ifname == "x" and false))`)
	if err != nil {
		t.Fatal(err)
	}
	f.Within(maxSteps)
	looked, r := 0, long(30, 10)
	start := time.Now()
	for range 100_000 {
		switch _, err := f.Match(r); {
		case err == nil:
			looked++
		case !errors.Is(err, ErrBusy):
			t.Fatal(err)
		}
	}
	b := &budget{left: maxSteps}
	if _, err := f.run(r, b); err != nil {
		t.Fatal(err)
	}
	// The burst, what comes in that time, and the record that takes more than is left.
	most := int(float64(maxSteps)*(1+time.Since(start).Seconds()))/(maxSteps-b.left) + 1
	if looked == 0 || looked > most {
		t.Errorf("%d records of %d steps were looked at, at most %d expected", looked, maxSteps-b.left, most)
	}
	time.Sleep(200 * time.Millisecond)
	if _, err := f.Match(dropped()); err != nil {
		t.Errorf("later: %v", err)
	}
}
