package cases

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// reports are rows of what is reported often and looked wrong, or might: what is checked is that
// the cause is said, and no other.
var reports = []lookupCase{
	{
		name: "90 a plugin waits for its backend in vain", reported: "coredns/coredns, plugin etcd: context deadline exceeded",
		plugins: "etcd skydns.test {\n endpoint http://127.0.0.1:1\n }\n forward . $UP",
		asks:    []ask{dig("a.skydns.test", "+time=9"), dig("b.good.test")},
		check: func(c *caseLab) {
			c.healthy()
			c.causedBy("a.skydns.test", "server-slow", "CoreDNS's plugin etcd took")
			c.causedBy("a.skydns.test", "server-slow", "answered SERVFAIL: context deadline exceeded")
		},
	},
	{
		name: "91 truncated over TCP too", reported: "golang/go#21160, moby/moby#40248",
		arrange: func(c *caseLab) {
			c.Upstream(0).Set("always.test.", lab.Behaviour{Change: func(_, a *dns.Msg) { a.Truncated, a.Answer = true, nil }})
		},
		asks:  []ask{glibc("a.always.test", once), goResolver("b.always.test", once), dig("d.always.test")},
		check: func(c *caseLab) { c.onlySays("truncated-retry", "over UDP and over TCP too") },
	},
	{
		name: "92 no upstream is thought to be well", reported: "coredns/coredns#6991, failfast_all_unhealthy_upstreams",
		plugins: "forward fast.test 203.0.113.9 {\n max_fails 1\n health_check 0.5s\n failfast_all_unhealthy_upstreams\n }\n forward . $UP",
		asks:    []ask{inTurn(dig("x.fast.test"), pause(3*time.Second), dig("a.fast.test"))},
		unasked: true,
		check: func(c *caseLab) {
			c.causedBy("a.fast.test", "upstream-error", "CoreDNS answered SERVFAIL to a.fast.test. A: no healthy proxies")
		},
	},
	{
		name: "93 a firewall limits the queries of a client", reported: "kubernetes/kubernetes, hashlimit on port 53", unrecorded: true,
		arrange: func(c *caseLab) {
			limit := []string{"-m", "hashlimit", "--hashlimit-above", "2/sec", "--hashlimit-burst", "2", "--hashlimit-mode", "srcip", "--hashlimit-name", "dns"}
			_, err := c.RuleAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Network: "udp", Leg: lab.ClientLeg, Extra: limit}, "-j", "DROP")
			c.must(err)
		},
		asks:  []ask{glibc("a.good.test", twoTries), musl("b.good.test", twoTries), goResolver("c.good.test", twoTries), goResolver("d.good.test", twoTries)},
		check: func(c *caseLab) { c.onlySays("dropped-by-netfilter", "A firewall rule dropped the client's") },
	},
	{
		name: "94 one nameserver is a black hole", reported: "alpinelinux/docker-alpine#203",
		asks: []ask{musl("a.good.test", oneBlackHole), glibc("b.good.test", oneBlackHole), goResolver("c.good.test", oneBlackHole)}, unrecorded: true,
		check: func(c *caseLab) {
			c.onlySays("dropped-other", "The kernel dropped the client's query")
			c.oneCall("b.good.test")
			for _, t := range c.traces {
				if atHole := t.Exchange.ServerIP.String() == "203.0.113.1"; atHole != (len(t.Diagnosis) > 0) {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "95 an upstream that does not know EDNS", reported: "systemd/systemd#6490, FORMERR",
		arrange: func(c *caseLab) {
			c.Upstream(0).Set("noedns.test.", lab.Behaviour{Change: func(q, a *dns.Msg) {
				if q.IsEdns0() != nil {
					a.Rcode, a.Answer, a.Extra = dns.RcodeFormatError, nil, nil
				}
			}})
		},
		asks:  []ask{dig("a.noedns.test"), glibc("b.noedns.test", once), goResolver("c.noedns.test", once)},
		check: func(c *caseLab) { c.onlySays("upstream-error", "The upstream 192.168.49.10:53 answered FORMERR") },
	},
	{
		name: "96 from port 53 to port 53", reported: "dnsmasq --query-port, BIND query-source port 53",
		asks:  []ask{from("client-a", lab.Query{Name: "a.good.test", LocalPort: 53}), from("client-b", lab.Query{Name: "b.silent.test", LocalPort: 53, Timeout: 8 * time.Second})},
		check: func(c *caseLab) { c.healthy(); c.namedOnce("b.silent.test", c.Upstream(0).V4().String()) },
	},
	{
		name: "97 hosts without fallthrough", reported: "coredns/coredns, plugin hosts",
		plugins: "hosts {\n 203.0.113.5 www.hosts.test\n }\n forward . $UP", asks: []ask{dig("www.hosts.test"), dig("a.other.test")},
		check: func(c *caseLab) {
			c.causedBy("a.other.test", "upstream-error", "CoreDNS answered SERVFAIL to a.other.test. A by its plugin hosts")
		},
	},
	{
		name: "98 aliases that lead nowhere, and to a silent upstream", reported: "coredns/coredns#1887",
		plugins: "template IN A cname.test {\n answer \"{{ .Name }} 60 IN CNAME nowhere.silent.test.\"\n }\n forward . $UP",
		asks:    []ask{dig("a.cname.test")},
		check: func(c *caseLab) {
			c.namedOnce("a.cname.test", c.Upstream(0).V4().String())
		},
	},
}

const (
	twoTries     = "nameserver 10.96.0.10\noptions timeout:1 attempts:2\n"
	oneBlackHole = "nameserver 203.0.113.1\nnameserver 10.96.0.10\noptions timeout:2 attempts:1\n"
)

// onlySays wants a finding of some lookups, in these words, and of none another.
func (c *caseLab) onlySays(code, summary string) {
	c.t.Helper()
	said := 0
	for _, t := range c.traces {
		for _, f := range t.Diagnosis {
			switch {
			case slices.Contains([]string{"upstream-unhealthy", "server-overloaded", "slow-upstream"}, f.Code): // of many lookups, and a busy machine's
			case f.Code == code && strings.Contains(f.Summary, summary):
				said++
			default:
				c.t.Errorf("%s: %s", describe(t), words(t))
			}
		}
	}
	if said == 0 {
		c.t.Errorf("nothing has %s: %s", code, summary)
	}
}
