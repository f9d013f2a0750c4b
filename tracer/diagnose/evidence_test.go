package diagnose_test

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// claim is a sentence of the evidence of a finding about a trace, beside all traces of its
// case. A check reads the record itself; it uses nothing of the rules.
type claim struct {
	t       *trace.Trace
	all     []*trace.Trace
	finding *trace.Finding
}

// sentence is one form of evidence, and what has to be so in the record for it to be true.
type sentence struct {
	form  *regexp.Regexp
	check func(c *claim, said []string) bool
}

// Parts of the forms.
const (
	long  = `(\d+(?:\.\d+)? (?:ns|µs|ms|s)|0)`
	addr  = `([0-9a-f.:]+)`
	endAt = `(\[?[0-9a-f.:]+\]?:\d+)`
	id    = `0x([0-9a-f]+)`
	netns = `namespace (\S+?)`
	where = `(sent to device \S+|received from device \S+|delivered to a socket|read from a socket by its process)`
	kind  = `(query|response|SYN|SYN-ACK)`
)

func form(f string, is func(c *claim, said []string) bool) sentence {
	return sentence{regexp.MustCompile("^" + f + "$"), is}
}

// holds tells whether a sentence is true; known is false for one of no form.
func (c *claim) holds(said string) (is, known bool) {
	for _, s := range slices.Concat(packetSentences, serverSentences, callSentences) {
		if m := s.form.FindStringSubmatch(said); m != nil {
			known = true
			if s.check(c, m[1:]) {
				return true, true
			}
		}
	}
	return false, known
}

// eachClaim visits all evidence of all recorded cases.
func eachClaim(t *testing.T, change func(*trace.Trace), visit func(name string, c *claim, said string)) {
	t.Helper()
	for _, path := range recordedCases(t) {
		d := diagnose.New()
		all := assembled(t, path)
		for _, tr := range all {
			found := d.Trace(tr)
			change(tr)
			for i := range found {
				for _, said := range found[i].Evidence {
					visit(caseName(path), &claim{tr, all, &found[i]}, said)
				}
			}
		}
	}
}

// What the evidence quotes is what the record has: addresses, times, counts, and that
// something was not seen.
func TestEvidenceIsTrue(t *testing.T) {
	eachClaim(t, func(*trace.Trace) {}, func(name string, c *claim, said string) {
		switch is, known := c.holds(said); {
		case !known:
			t.Errorf("%s, %s: nothing checks %q", name, c.finding.Code, said)
		case !is:
			t.Errorf("%s, %s of %s %s: the record does not say that %q", name, c.finding.Code, c.t.QName, c.t.QType, said)
		}
	})
}

// quoted is what a sentence says of the record in figures.
var quoted = regexp.MustCompile(`\d`)

// unchecked are figures that are no quotes, or are of the names of others that are like it.
var unchecked = regexp.MustCompile(`Linux \d+(\.\d+)?|within 1 s|NXDOMAIN: n\d+`)

// A figure that is not the record's is found: in every sentence, each digit that is another
// makes it untrue.
func TestOtherFiguresAreUntrue(t *testing.T) {
	tried := map[string]bool{}
	eachClaim(t, func(*trace.Trace) {}, func(name string, c *claim, said string) {
		shape := c.finding.Code + quoted.ReplaceAllString(said, "#")
		if tried[shape] {
			return // a like sentence of that finding was tried
		}
		tried[shape] = true
		spared := unchecked.FindAllStringIndex(said, -1)
		for _, at := range quoted.FindAllStringIndex(said, -1) {
			if slices.ContainsFunc(spared, func(s []int) bool { return at[0] >= s[0] && at[0] < s[1] }) {
				continue
			}
			other := said[:at[0]] + strconv.Itoa((int(said[at[0]]-'0')+1)%10) + said[at[1]:]
			if is, _ := c.holds(other); is {
				t.Errorf("%s, %s: %q would be believed instead of %q", name, c.finding.Code, other, said)
			}
		}
	})
}

// What says that something was not seen, or how something ended, is untrue of a record in
// which it was, or ended otherwise.
func TestEvidenceOfAnotherRecordIsUntrue(t *testing.T) {
	for part, change := range map[string]func(*trace.Trace){
		"and nothing came back":               func(tr *trace.Trace) { eachExchange(tr, addResponse) },
		"no query record of this lookup came": func(tr *trace.Trace) { tr.Query = &trace.Query{} },
		"the kernel reported no drop of it on this node": func(tr *trace.Trace) {
			if tr.Exchange == nil {
				return
			}
			tr.Exchange.Drops = append(tr.Exchange.Drops, trace.Drop{Message: trace.MessageQuery})
		},
		"no ICMP error that tells":  func(tr *trace.Trace) { eachExchange(tr, func(ex *trace.Exchange) { ex.ICMP = &trace.ICMP{} }) },
		"CoreDNS never recorded it": func(tr *trace.Trace) { tr.Gaps = nil },
		"it was last seen": func(tr *trace.Trace) {
			eachExchange(tr, func(ex *trace.Exchange) {
				ex.Path.Append(trace.Sighting{Device: trace.Device{NetNSName: "beyond"}, Message: trace.MessageQuery, Direction: trace.DirectionTX, Offset: math.MaxInt64})
			})
		},
	} {
		refused := 0
		eachClaim(t, change, func(name string, c *claim, said string) {
			if !strings.Contains(said, part) {
				return
			}
			if is, _ := c.holds(said); is {
				t.Errorf("%s, %s: %q is believed of another record", name, c.finding.Code, said)
			}
			refused++
		})
		if refused == 0 {
			t.Errorf("no evidence says %q", part)
		}
	}
}

func addResponse(ex *trace.Exchange) {
	ex.Path.Append(trace.Sighting{Message: trace.MessageResponse, Direction: trace.DirectionRX, Offset: math.MaxInt64})
}

// eachExchange visits the exchanges of a trace.
func eachExchange(t *trace.Trace, visit func(*trace.Exchange)) {
	if t.Exchange != nil {
		visit(t.Exchange)
	}
	eachUpstreamOf(t.Upstreams, func(u *trace.Upstream) {
		for _, ex := range u.Exchanges() {
			visit(ex)
		}
	})
}

func eachUpstreamOf(upstreams []trace.Upstream, visit func(*trace.Upstream)) {
	for i := range upstreams {
		visit(&upstreams[i])
		eachUpstreamOf(upstreams[i].Upstreams, visit)
	}
}

// exchange tells whether the trace has an exchange that is like this.
func (c *claim) exchange(like func(*trace.Exchange) bool) (found bool) {
	eachExchange(c.t, func(ex *trace.Exchange) { found = found || like(ex) })
	return found
}

// anyExchange tells so of all traces of the case.
func (c *claim) anyExchange(like func(*trace.Exchange) bool) (found bool) {
	for _, t := range c.all {
		eachExchange(t, func(ex *trace.Exchange) { found = found || like(ex) })
	}
	return found
}

// query tells whether the trace has a record of a server that is like this.
func (c *claim) query(like func(*trace.Query) bool) bool {
	found := c.t.Query != nil && like(c.t.Query)
	eachUpstreamOf(c.t.Upstreams, func(u *trace.Upstream) { found = found || u.Query != nil && like(u.Query) })
	return found
}

// attempt tells whether the trace has an attempt that is like this.
func (c *claim) attempt(like func(*trace.Attempt) bool) (found bool) {
	eachUpstreamOf(c.t.Upstreams, func(u *trace.Upstream) { found = found || u.Attempt != nil && like(u.Attempt) })
	return found
}

// seconds writes a time as the evidence does.
func seconds(d time.Duration) string { return trace.Seconds(d).String() }

func spent(s trace.Seconds, said string) bool { return seconds(s.Duration()) == said }

func spentPtr(s *trace.Seconds, said string) bool { return s != nil && spent(*s, said) }

func number(said string) int {
	n, err := strconv.Atoi(said)
	if err != nil {
		return -1
	}
	return n
}

func hexID(said string) uint16 {
	n, err := strconv.ParseUint(said, 16, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}
