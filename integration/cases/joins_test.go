package cases

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// joins are the rows about which packets belong to which lookup.
var joins = []lookupCase{
	{
		name: "01 the only upstream is asked twice", reported: "coredns/coredns#2514, kubernetes/dns#715",
		asks: askedTwice,
	},
	{
		name: "01 the same, stamped", reported: "coredns/coredns#2514, kubernetes/dns#715",
		dnstrace: "stamp all", asks: askedTwice,
	},
	{
		name: "01 the same over TCP, which has no answer", reported: "kubernetes/dns#715",
		asks: []ask{dig("a.noanswertcp.test"), dig("b.noanswertcp.test", "+tcp"), dig("a.good.test", "+tcp")},
	},
	{
		name: "02 answers that their receiver cannot take", reported: "coredns/coredns#1899, #3305, #3941",
		asks: []ask{
			dig("a.otherquestion.test"), dig("a.otherid.test"), dig("a.malformed.test"), dig("a.cut.test"),
			digUpstream("b.otherquestion.test"), digUpstream("b.otherid.test"), digUpstream("b.malformed.test"), digUpstream("b.cut.test"),
		},
		check: rejectedAnswers,
	},
	{
		name: "07 one reply of a flow gets through", reported: "kubernetes/kubernetes#56903, NLnetLabs/unbound#424",
		plugins: "cache 30\n forward . $UP", unwatched: []string{lab.Node}, tracer: []string{"--timeout", "5s"},
		arrange: func(c *caseLab) {
			_, err := c.RuleAt(lab.Place{Host: lab.Node, Table: "mangle", Chain: "FORWARD"}, lab.Match{
				Messages: lab.Responses, Network: "udp", Family: 4, Leg: lab.ClientLeg,
				Extra: []string{"-m", "connbytes", "--connbytes", "2:", "--connbytes-dir", "reply", "--connbytes-mode", "packets"},
			}, "-j", "DROP")
			c.must(err)
		},
		asks: []ask{glibc("a.good.test", asEver), musl("b.good.test", asEver)},
		check: func(c *caseLab) {
			c.oneCall("a.good.test")
			c.oneCall("b.good.test")
		},
	},
	{
		name: "09 the first nameserver has no link address", reported: "coredns/coredns#2514, kubernetes/dns#715",
		asks:  []ask{glibc("a.good.test", "nameserver 10.244.0.77\nnameserver 10.96.0.10\noptions timeout:2 attempts:2\n")},
		check: deadNameserver,
	},
	{
		name: "12 over UDP, and then over TCP in one attempt", reported: "coredns/coredns#5541, aws/amazon-vpc-cni-k8s#595",
		plugins: "forward . $UP {\n prefer_udp\n }",
		asks:    []ask{dig("a.truncated.test", "+tcp"), dig("b.truncated.test", "+ignore"), dig("a.good.test")},
		check: func(c *caseLab) {
			for _, name := range []string{"a.truncated.test", "b.truncated.test"} {
				c.overUDPThenTCP(c.one(name))
			}
		},
	},
	{
		name: "13 the listen queue is full", reported: "kubernetes/dns#745, #598",
		arrange: func(c *caseLab) {
			c.must(c.Upstream(0).SetStreams(lab.Streams{Deaf: true}))
			fillQueue(c)
		},
		asks: []ask{digUpstream("a.truncated.test")},
		check: func(c *caseLab) {
			c.one("a.truncated.test")
			full := 0
			for _, t := range c.traces {
				if strings.Contains(words(t), "beyond this node") {
					c.t.Errorf("%s: the SYN has reached the server, on this node: %s", describe(t), words(t))
				}
				if strings.Contains(words(t), "its queue of connections is full") {
					full++
				}
			}
			if full == 0 {
				c.t.Error("nothing says that the listen queue is full")
			}
		},
	},
	{
		name: "15 a proxy asks as the client", reported: "cilium/cilium#28928, #33144",
		asks:  []ask{askImpersonator},
		check: impersonated,
	},
	{
		name: "18 the upstream is asked for another name", reported: "coredns/coredns#2038, #6917, kubernetes/dns#243",
		plugins: otherNames, arrange: zoneFile, asks: otherNamesAsked, check: otherNamesTold,
	},
	{
		name: "18 the same, stamped", reported: "coredns/coredns#2038, #6917, kubernetes/dns#243",
		dnstrace: "stamp all", plugins: otherNames, arrange: zoneFile, asks: otherNamesAsked, check: otherNamesTold,
	},
	{
		name: "18 dns64 asks for another type", reported: "coredns/coredns#2038",
		plugins: "dns64 {\n allow_ipv4\n }\n forward . $UP",
		asks:    []ask{dig("a.onlya.test", "AAAA"), dig("b.onlya.test", "A")},
		check: func(c *caseLab) {
			c.attemptsOf("a.onlya.test", 2)
			c.attemptsOf("b.onlya.test", 1)
		},
	},
	{
		name: "35 the upstream had closed the connection", reported: "coredns/coredns#1651, #2230, kubernetes/dns#480",
		plugins: "forward . $UP {\n force_tcp\n }",
		arrange: func(c *caseLab) { c.must(c.Upstream(0).SetStreams(lab.Streams{Idle: time.Second})) },
		asks: []ask{inTurn(
			dig("a.good.test"), pause(1500*time.Millisecond), dig("b.good.test"), dig("c.good.test"), pause(1500*time.Millisecond), dig("d.good.test"),
		)},
		check: func(c *caseLab) {
			for _, name := range []string{"a.good.test", "b.good.test", "c.good.test", "d.good.test"} {
				if t := c.one(name); t.Outcome != trace.OutcomeAnswered || len(t.Diagnosis) != 0 {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "38 behind two servers the upstream is silent", reported: "kubernetes/kubernetes#113080, kubernetes/dns#715",
		topology: "node-local", serve: nodeLocal, servers: []string{lab.Node, lab.CoreDNS},
		asks:  []ask{askNodeLocal("a.good.test"), askNodeLocal("a.silent.test"), askNodeLocal("b.silent.test")},
		check: silentBehindTwo,
	},
	{
		name: "39 asked three times for the case of a name", reported: "netbirdio/netbird#2647, haproxy/haproxy#566",
		servers: []string{lab.CoreDNS, "client-b"},
		arrange: func(c *caseLab) {
			at := netip.AddrPortFrom(c.Host("client-b").V4, 53)
			_, err := c.Start(lab.Spec{
				Name: "mixedcase", Host: "client-b", Path: built["mixedcase"],
				Args: []string{at.String(), lab.ServiceV4.String()}, Ready: lab.ReadyListening(53),
			})
			c.must(err)
		},
		asks: []ask{askMixedCase("a.good.test"), askMixedCase("a.lowercase.test")},
		check: func(c *caseLab) {
			c.exchangesBehind("a.good.test", 1)
			c.exchangesBehind("a.lowercase.test", 3)
		},
	},
	{
		name: "44 all servers are asked at once", reported: "dnsmasq's manual, --all-servers",
		serve: func(c *caseLab) {
			_, err := c.StartDnsmasq([]netip.Addr{c.Upstream(0).V4().Addr(), c.Upstream(1).V4().Addr()}, "--all-servers", "--cache-size=0")
			c.must(err)
		},
		asks: []ask{dig("a.good.test"), dig("a.slowest.test")},
		check: func(c *caseLab) {
			c.exchangesBehind("a.good.test", 2)
			c.exchangesBehind("a.slowest.test", 2)
		},
	},
}

var askedTwice = []ask{
	dig("a.silent.test"), dig("b.silent.test"), dig("c.silent.test"),
	dig("a.malformed.test", "+tcp"), dig("b.malformed.test", "+tcp"), dig("c.malformed.test"), dig("a.slip.test"),
}

// rejectedAnswers wants the answers that were not taken where they came, and none of them
// told as something else.
func rejectedAnswers(c *caseLab) {
	spoiled := []string{trace.RejectedMalformed, trace.RejectedIncomplete}
	for name, why := range map[string][]string{
		"otherquestion.test": {trace.RejectedQuestion}, "otherid.test": {trace.RejectedID}, "malformed.test": spoiled, "cut.test": spoiled,
	} {
		c.rejected(c.one("b."+name).Exchange, why)
		// Over UDP, CoreDNS makes a truncated answer of what it cannot read.
		behind := c.of("a." + name)
		for _, t := range behind {
			for _, ex := range below(t.Upstreams) {
				c.rejected(ex, why)
			}
		}
		for _, t := range append(behind, c.one("b."+name)) {
			for _, wrong := range []string{"answered FORMERR", "No response was seen"} {
				if strings.Contains(words(t), wrong) {
					c.t.Errorf("%s: %q: %s", describe(t), wrong, words(t))
				}
			}
		}
	}
}

// rejected wants an exchange whose response was not taken for one of the reasons.
func (c *caseLab) rejected(ex *trace.Exchange, why []string) {
	c.t.Helper()
	if len(ex.Rejected) == 0 || !slices.Contains(why, ex.Rejected[0].Why) || ex.Outcome != trace.OutcomeUnanswered || ex.RCode != "" {
		c.t.Errorf("%s: %s %s, rejected %+v, expected for %v", ex.QName, ex.Outcome, ex.RCode, ex.Rejected, why)
	}
}

// oneCall wants the lookups of a name to be one resolution.
func (c *caseLab) oneCall(name string) {
	c.t.Helper()
	all := c.of(name)
	for _, t := range all {
		if t.Resolution == "" || t.Resolution != all[0].Resolution {
			c.t.Errorf("%s: resolution %q, of the first %q", describe(t), t.Resolution, all[0].Resolution)
		}
	}
}

// deadNameserver wants the queries to the server that does not exist before those that
// the resolver made because of it.
func deadNameserver(c *caseLab) {
	dead := netip.MustParseAddr("10.244.0.77")
	c.oneCall("a.good.test")
	var toDead, others []*trace.Trace
	for _, t := range c.of("a.good.test") {
		if t.Exchange.ServerIP == dead {
			toDead = append(toDead, t)
		} else {
			others = append(others, t)
		}
	}
	if len(toDead) == 0 || len(others) == 0 {
		c.t.Fatalf("%d lookups of the first server, %d of the second", len(toDead), len(others))
	}
	if last, first := toDead[len(toDead)-1], others[0]; !last.Time.Before(first.Time) {
		c.t.Errorf("%s at %s, and %s at %s", describe(last), last.Time, describe(first), first.Time)
	}
	for _, t := range toDead {
		if t.Outcome != trace.OutcomeDropped || !strings.Contains(words(t), dead.String()) {
			c.t.Errorf("%s: nothing names the server that does not exist: %s", describe(t), words(t))
		}
	}
}

// overUDPThenTCP wants both exchanges of one attempt.
func (c *caseLab) overUDPThenTCP(t *trace.Trace) {
	c.t.Helper()
	var protocols []string
	for _, ex := range below(t.Upstreams) {
		protocols = append(protocols, ex.Protocol)
	}
	if len(t.Upstreams) != 1 || strings.Join(protocols, " ") != "udp tcp" {
		c.t.Errorf("%s: one attempt has the exchanges %v", describe(t), protocols)
	}
}

func askImpersonator(c *caseLab) {
	at, err := c.Impersonate("client-a")
	if err != nil {
		c.t.Error(err)
		return
	}
	digAt(at.Addr(), "a.good.test")(c)
}

// impersonated wants no translation where there is none: the response that the client got
// came from the proxy.
func impersonated(c *caseLab) {
	answered := false
	for _, t := range c.of("a.good.test") {
		if t.Exchange.NAT != nil {
			c.t.Errorf("%s: translated: %+v", describe(t), t.Exchange.NAT)
		}
		answered = answered || t.Exchange.ServerIP == c.Host(lab.Node).V4 && t.Outcome == trace.OutcomeAnswered
	}
	if !answered {
		c.t.Error("the proxy did not answer")
	}
}

// otherNames makes of some names others.
const otherNames = `rewrite stop {
  name suffix .rewritten.test .good.test answer auto
 }
 rewrite stop {
  name suffix .rewritten-failing.test .servfail.test answer auto
 }
 template ANY ANY alias.test {
  answer "{{ .Name }} 60 IN CNAME target.good.test."
 }
 file $DIR/zone zone.test
 forward . $UP`

// zoneFile writes the zone of otherNames.
func zoneFile(c *caseLab) {
	const zone = `$ORIGIN zone.test.
$TTL 60
@ SOA ns admin 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.1
good CNAME beyond.good.test.
failing CNAME beyond.servfail.test.
`
	c.must(os.WriteFile(filepath.Join(c.Dir(), "zone"), []byte(zone), 0o600))
}

var otherNamesAsked = []ask{
	dig("a.rewritten.test"), dig("a.rewritten-failing.test"), dig("a.alias.test"), dig("good.zone.test"), dig("failing.zone.test"),
}

// otherNamesTold wants the attempt behind each name, and the cause of a failure behind
// an alias.
func otherNamesTold(c *caseLab) {
	for _, name := range []string{"a.rewritten.test", "a.rewritten-failing.test", "a.alias.test", "good.zone.test", "failing.zone.test"} {
		c.attemptsOf(name, 1)
	}
	for _, name := range []string{"a.rewritten-failing.test", "failing.zone.test"} {
		if t := c.one(name); len(t.Diagnosis) == 0 {
			c.t.Errorf("%s: nothing says why", describe(t))
		}
	}
}

// attemptsOf wants the one lookup of a name to have n attempts, each with one exchange.
func (c *caseLab) attemptsOf(name string, n int) {
	c.t.Helper()
	t := c.one(name)
	if len(t.Upstreams) != n || len(below(t.Upstreams)) != n {
		c.t.Errorf("%s: expected %d attempts with an exchange each", describe(t), n)
	}
}

// exchangesBehind wants the server of the one lookup of a name, which has no plugin, to
// have asked n times.
func (c *caseLab) exchangesBehind(name string, n int) {
	c.t.Helper()
	t := c.one(name)
	with := 0
	for i := range t.Upstreams {
		with += len(attemptExchanges(&t.Upstreams[i]))
	}
	if with != n {
		c.t.Errorf("%s: %d upstream queries, expected %d", describe(t), with, n)
	}
}

func askMixedCase(name string) ask {
	return func(c *caseLab) { digAt(c.Host("client-b").V4, name)(c) }
}

// nodeLocal starts the two servers of the topology; the second takes the trace of the
// first.
func nodeLocal(c *caseLab) {
	for _, server := range c.Topology().Servers {
		dnstrace, plugins := "accept 0.0.0.0/0", "cache 30\n forward . $UP"
		if server.Forward[0].IsValid() {
			dnstrace = fmt.Sprintf("stamp %s/32", server.Forward[0])
			plugins = fmt.Sprintf("bind %s\n cache 30\n forward . %s {\n force_tcp\n }", server.Bind[0], server.Forward[0])
		}
		_, err := c.StartServer(server, c.block(dnstrace, plugins))
		c.must(err)
	}
}

func askNodeLocal(name string) ask {
	return func(c *caseLab) { digAt(c.Topology().Services[0].Addr(), name)(c) }
}

// silentBehindTwo wants the server at the end named, and not the one in between.
func silentBehindTwo(c *caseLab) {
	between := c.Topology().Servers[0].Forward[0].String()
	end := c.Upstream(0).V4().Addr().String()
	for _, name := range []string{"a.silent.test", "b.silent.test"} {
		t := c.one(name)
		if !strings.Contains(words(t), end) {
			c.t.Errorf("%s: nothing names %s: %s", describe(t), end, words(t))
		}
		if strings.Contains(words(t), between+":53 did not answer") {
			c.t.Errorf("%s: %s is blamed: %s", describe(t), between, words(t))
		}
	}
	t := c.one("a.good.test")
	if len(t.Upstreams) != 1 || t.Upstreams[0].Query == nil || len(t.Upstreams[0].Upstreams) != 1 {
		c.t.Errorf("%s: no tree of two servers", describe(t))
	}
}
