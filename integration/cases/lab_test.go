package cases

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/stage"
	"github.com/dnstrace/dnstrace/trace"
)

// zones are what the upstreams know, and how they behave; below good.test. all is well.
var zones = map[string][]lab.Behaviour{
	"silent.test.":        {{Silent: true}},
	"late.test.":          {{Delay: 1500 * time.Millisecond}},
	"servfail.test.":      {{Rcode: dns.RcodeServerFailure}},
	"refused.test.":       {{Rcode: dns.RcodeRefused}},
	"malformed.test.":     {{Mangle: lab.Malformed}},
	"cut.test.":           {{Mangle: lab.Cut}},
	"otherid.test.":       {{Mangle: lab.OtherID}},
	"otherquestion.test.": {{Mangle: lab.OtherQuestion}},
	"lowercase.test.":     {{Mangle: lab.LowerCase}},
	"slip.test.":          {{Slip: 2}},
	"limited.test.":       {{Delay: 1500 * time.Millisecond, Limit: 4}},
	"truncated.test.":     {{Truncated: true}},
	"many.test.":          {{Records: 20}},
	"onlya.test.":         {{Type: dns.TypeAAAA, Empty: true}},
	"nxaaaa.test.":        {{Type: dns.TypeAAAA, Rcode: dns.RcodeNameError}},
	"noaaaa.test.":        {{Type: dns.TypeAAAA, Silent: true}},
	"lateaaaa.test.":      {{Type: dns.TypeAAAA, Delay: 1500 * time.Millisecond}},
	"silentaaaa.test.":    {{Type: dns.TypeAAAA, Network: "tcp", Silent: true}, {Network: "udp", Truncated: true}},
	"slowest.test.":       {{Delay: 200 * time.Millisecond}},
	"noanswertcp.test.":   {{Network: "tcp", Silent: true}, {Network: "udp", Truncated: true}},
}

// lookupCase is a row of the table.
type lookupCase struct {
	name     string // its number, and what it is
	reported string // where

	topology  string   // of the lab; empty: one bridge
	upstreams int      // how many there are; 0 means two
	unwatched []string // hosts that the tracer does not observe
	tracer    []string // more flags of the tracer

	// The server block of CoreDNS: properties of dnstrace, and the plugins after it, with
	// $UP for the address of the first upstream and $DIR for a folder. Without plugins it
	// forwards to the first upstream.
	dnstrace, plugins string
	// serve starts servers in CoreDNS's stead.
	serve func(c *caseLab)
	// servers are the hosts that ask others because they are asked; CoreDNS if empty.
	servers []string

	arrange func(c *caseLab) // before the servers start
	asks    []ask            // all at once

	// unrecorded tells that there are lookups which CoreDNS has no record of, unasked that
	// there are attempts without a query: no packets of them are wanted.
	unrecorded, unasked bool
	// check holds what is true of this row alone.
	check func(c *caseLab)
}

// caseLab is the lab of a row.
type caseLab struct {
	*lab.Lab
	t      *testing.T
	row    *lookupCase
	traces []*trace.Trace // in order of time
}

// Of a lookup that is made when all others have ended. Its server is silent, so that it
// is reported after them.
const lastName = "last.silent.test."

// observerTimeout is the tracer's --timeout: longer than CoreDNS waits for an upstream.
const observerTimeout = "3s"

// patience is how long the tracer may take to report the last lookup.
const patience = time.Minute

// run makes the lookups of a row, and checks what is said of them.
func (row *lookupCase) run(t *testing.T) {
	c := &caseLab{Lab: lab.New(t, lab.Config{Topology: topology(t, row.topology), Upstreams: row.upstreams}), t: t, row: row}
	for i := range c.upstreams() {
		for zone, behaviours := range zones {
			for _, b := range behaviours {
				c.Upstream(i).Set(zone, b)
			}
		}
	}
	flags := append(c.watched(), "--timeout", observerTimeout)
	_, err := c.StartTracer(append(flags, row.tracer...)...)
	c.must(err)
	if row.arrange != nil {
		row.arrange(c)
	}
	if row.serve != nil {
		row.serve(c)
	} else {
		_, err := c.StartCoreDNS(c.corefile())
		c.must(err)
	}
	atOnce(row.asks...)(c)
	c.settle()
	c.keep()
	c.checkAlways()
	if row.check != nil {
		row.check(c)
	}
	if t.Failed() {
		c.log()
	}
}

// topology returns the topology of that name.
func topology(t *testing.T, name string) lab.Topology {
	t.Helper()
	if name == "" {
		return lab.Topology{}
	}
	all := lab.Topologies()
	i := slices.IndexFunc(all, func(top lab.Topology) bool { return top.Name == name })
	if i < 0 {
		t.Fatalf("no topology %s", name)
	}
	return all[i]
}

// watched are the flags of a tracer that observes the hosts of the lab, and not what else
// the machine looks up.
func (c *caseLab) watched() []string {
	var flags []string
	for _, h := range []string{lab.Node, lab.CoreDNS, lab.Upstream, "client-a", "client-b"} {
		if !slices.Contains(c.row.unwatched, h) {
			flags = append(flags, "--netns", c.Host(h).Netns)
		}
	}
	return flags
}

func (c *caseLab) corefile() string {
	plugins := c.row.plugins
	if plugins == "" {
		plugins = "forward . $UP"
	}
	return c.block(c.row.dnstrace, plugins)
}

// block is a server block for all names.
func (c *caseLab) block(dnstrace, plugins string) string {
	text := ".:53 {\n dnstrace {\n output unix " + c.RecordSocket() + "\n " + dnstrace + "\n }\n errors\n " + plugins + "\n}\n"
	addresses := []string{"$DIR", c.Dir(), "$UP6", c.Upstream(0).V6().Addr().String()}
	for i := 1; i < c.upstreams(); i++ {
		addresses = append(addresses, fmt.Sprintf("$UP%d", i), c.Upstream(i).V4().Addr().String())
	}
	return strings.NewReplacer(append(addresses, "$UP", c.Upstream(0).V4().Addr().String())...).Replace(text)
}

// upstreams is how many upstreams there are.
func (c *caseLab) upstreams() int { return max(c.row.upstreams, 2) }

func (c *caseLab) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// settle waits until all lookups are reported, and reads their traces: what was asked
// last is, and nothing more comes.
func (c *caseLab) settle() {
	c.t.Helper()
	_, err := c.Client("client-b").Exchange(context.Background(), lab.Query{Name: lastName, Server: c.Upstream(0).V4(), GiveUpAfter: time.Millisecond})
	if err == nil {
		c.t.Fatalf("%s was answered", lastName)
	}
	const quiet = 2 * time.Second
	var since time.Time
	lines := 0
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		all, err := stage.ReadTraces(c.RecordFile())
		c.must(err)
		all = slices.DeleteFunc(all, healthCheck)
		if len(all) != lines {
			lines, since = len(all), time.Now()
		}
		if isLast := func(t *trace.Trace) bool { return t.QName == lastName }; slices.ContainsFunc(all, isLast) && time.Since(since) > quiet {
			c.take(slices.DeleteFunc(all, isLast))
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s is not reported, of %d traces\n%s", lastName, len(all), c.Outputs())
		}
	}
}

// take keeps the traces of the row's lookups: each once, as it was reported last. A query
// that comes again with the same ID from the same port, when it was answered, is another
// lookup.
func (c *caseLab) take(all []*trace.Trace) {
	c.t.Helper()
	type lookup struct {
		id     trace.TraceID
		time   int64
		server netip.AddrPort
	}
	index := make(map[lookup]int)
	for _, t := range all {
		key := lookup{id: t.TraceID, time: t.Time.UnixNano()}
		if t.Exchange != nil {
			key.server = netip.AddrPortFrom(t.Exchange.ServerIP, t.Exchange.ServerPort)
		}
		switch i, known := index[key]; {
		case !known:
			index[key] = len(c.traces)
			c.traces = append(c.traces, t)
		case t.Replaces:
			c.traces[i] = t
		default:
			c.t.Errorf("%s: reported twice", describe(t))
		}
	}
	slices.SortStableFunc(c.traces, func(a, b *trace.Trace) int { return a.Time.Compare(b.Time) })
}

// healthCheck tells whether a trace is of what CoreDNS asks to see whether an upstream works.
func healthCheck(t *trace.Trace) bool { return t.QName == "." }

// of returns the traces of a name, which must have some.
func (c *caseLab) of(name string) []*trace.Trace {
	c.t.Helper()
	var found []*trace.Trace
	for _, t := range c.traces {
		if t.QName == dns.CanonicalName(name) && t.Exchange != nil {
			found = append(found, t)
		}
	}
	if len(found) == 0 {
		c.t.Fatalf("%s: no trace\n%s", name, c.Outputs())
	}
	return found
}

// one returns the trace of a name, which must be the only one.
func (c *caseLab) one(name string) *trace.Trace {
	c.t.Helper()
	found := c.of(name)
	if len(found) != 1 {
		c.t.Errorf("%s: %d traces", name, len(found))
	}
	return found[0]
}

// recordEnv names a folder into which the records of each row are written.
//
//	DNSTRACE_RECORD=/tmp/cases go test -run TestCases/44 ./integration/cases
const recordEnv = "DNSTRACE_RECORD"

// keep copies the records of a row, if asked to.
func (c *caseLab) keep() {
	c.t.Helper()
	dir := os.Getenv(recordEnv)
	if dir == "" {
		return
	}
	records, err := os.ReadFile(c.RecordFile())
	c.must(err)
	c.must(os.WriteFile(filepath.Join(dir, strings.ReplaceAll(c.row.name, " ", "-")+".jsonl"), records, 0o644))
}

// log shows the traces of a row that failed.
func (c *caseLab) log() {
	for _, t := range c.traces {
		c.t.Log(describe(t))
	}
}

// ask makes lookups, and waits until they have ended.
type ask func(c *caseLab)

// atOnce makes lookups at the same time.
func atOnce(asks ...ask) ask {
	return func(c *caseLab) {
		var wait sync.WaitGroup
		for _, a := range asks {
			wait.Go(func() { a(c) })
		}
		wait.Wait()
	}
}

// inTurn makes one lookup after the other.
func inTurn(asks ...ask) ask {
	return func(c *caseLab) {
		for _, a := range asks {
			a(c)
		}
	}
}

// pause is longer than some timeout of the lab's.
func pause(d time.Duration) ask { return func(*caseLab) { time.Sleep(d) } }
