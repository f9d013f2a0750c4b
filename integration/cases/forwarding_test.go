package cases

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// forwarding are the rows about ways in which servers ask others.
var forwarding = []lookupCase{
	{
		name: "50 a chain with equal timeouts", reported: "kubernetes/kubernetes#113080",
		servers: []string{lab.CoreDNS, "client-b"}, serve: chain("", ""), tracer: longer, asks: inChain, check: onlyTheEndIsSilent,
	},
	{
		name: "50 the second server waits longer", reported: "kubernetes/kubernetes#113080",
		servers: []string{lab.CoreDNS, "client-b"}, serve: chain("", "read_timeout 3s"), tracer: longer, asks: inChain, check: onlyTheEndIsSilent,
	},
	{
		name: "50 the second server gives up first", reported: "kubernetes/kubernetes#113080",
		servers: []string{lab.CoreDNS, "client-b"}, serve: chain("", "read_timeout 500ms"), tracer: longer, asks: inChain, check: onlyTheEndIsSilent,
	},
	{
		name: "51 two of three upstreams are silent", reported: "coredns/coredns#2514",
		upstreams: 3, plugins: "forward . $UP $UP1 $UP2 {\n policy sequential\n max_fails 0\n }",
		arrange: func(c *caseLab) {
			c.Upstream(0).Set("good.test.", lab.Behaviour{Silent: true})
			c.Upstream(1).Set("good.test.", lab.Behaviour{Silent: true})
		},
		asks: []ask{dig("a.good.test"), dig("b.good.test", "+tcp")},
		check: func(c *caseLab) {
			for _, name := range []string{"a.good.test", "b.good.test"} {
				c.attemptsOf(name, 3)
				for i := range 2 {
					c.namedOnce(name, c.Upstream(i).V4().String())
				}
			}
		},
	},
	{
		name: "52 over IPv6 all the way", reported: "kubernetes, dual stack", plugins: "forward . $UP6",
		asks: []ask{digV6("a.good.test"), digV6("b.good.test", "+tcp"), digV6("c.silent.test"), dig("d.good.test")},
		check: func(c *caseLab) {
			c.healthy()
			c.attemptsOf("c.silent.test", 2)
			c.namedOnce("c.silent.test", c.Upstream(0).V6().String())
		},
	},
	{
		name: "53 masqueraded towards the upstream, with ports at random", reported: "kubernetes/kubernetes#56903",
		arrange: func(c *caseLab) {
			_, err := c.RuleAt(lab.Place{Host: lab.Node, Table: "nat", Chain: "POSTROUTING"}, lab.Match{Messages: lab.Queries, Leg: lab.UpstreamLeg}, "-j", "MASQUERADE", "--random-fully")
			c.must(err)
		},
		asks:  append(crowd(10, "same.good.test"), dig("a.good.test", "+tcp"), dig("b.silent.test")),
		check: func(c *caseLab) { c.healthy(); c.attemptsOf("b.silent.test", 2) },
	},
	{
		name: "54 asked for another name, by autopath and over several zones", reported: "coredns/coredns#2038, #6917",
		plugins: elsewhere, arrange: elsewhereFiles,
		asks: []ask{dig("a.good.test.default.svc.cluster.local"), dig("b.silent.test.default.svc.cluster.local"), dig("good.one.test"), dig("failing.one.test"), dig("a.templated.test")},
		check: func(c *caseLab) {
			for name, attempts := range map[string]int{
				"a.good.test.default.svc.cluster.local": 1, "b.silent.test.default.svc.cluster.local": 2, "good.one.test": 1, "failing.one.test": 1, "a.templated.test": 1,
			} {
				c.attemptsOf(name, attempts)
			}
		},
	},
	{
		name: "55 it goes on from an error to the next upstream", reported: "coredns/coredns, forward's failover",
		plugins: "forward . $UP $UP1 {\n policy sequential\n failover SERVFAIL REFUSED\n }",
		arrange: func(c *caseLab) { c.Upstream(1).Set("servfail.test.", lab.Behaviour{}) },
		asks:    []ask{dig("a.servfail.test"), dig("b.refused.test"), dig("c.good.test"), dig("d.servfail.test", "+tcp")},
		check: func(c *caseLab) {
			c.healthy()
			c.allExact()
			for _, name := range []string{"a.servfail.test", "b.refused.test", "d.servfail.test"} {
				c.attemptsOf(name, 2)
			}
		},
	},
	{
		name: "56 every response comes twice", reported: "duplicated by a mirror port, iptables TEE",
		arrange: func(c *caseLab) {
			for host, gateway := range map[string]string{lab.Upstream: "192.168.49.2", lab.CoreDNS: "10.244.0.1"} {
				c.inHost(host, "iptables", "-t", "mangle", "-A", "POSTROUTING", "-p", "udp", "--sport", "53", "-j", "TEE", "--gateway", gateway)
			}
		},
		asks:  []ask{dig("a.good.test"), glibc("b.good.test", once), dig("c.servfail.test")},
		check: func(c *caseLab) { c.healthy(); c.allExact() },
	},
	{
		name: "57 the upstream is behind VXLAN", reported: "flannel-io/flannel", plugins: "forward . 192.168.60.1", arrange: overVXLAN,
		asks: []ask{dig("a.good.test"), dig("b.good.test", "+tcp"), dig("c.silent.test")},
		check: func(c *caseLab) {
			c.healthy()
			c.allExact()
			c.namedOnce("c.silent.test", "192.168.60.1:53")
		},
	},
	{
		name: "58 the client is in the server's namespace", reported: "a sidecar", servers: []string{},
		asks: []ask{
			atServer("127.0.0.1", "a.good.test"), atServer("127.0.0.1", "b.good.test", "+tcp"), atServer("::1", "c.good.test"),
			atServer("10.244.0.2", "d.good.test"), atServer("10.244.0.2", "e.silent.test"), atServer("fd00:10:244::2", "f.good.test", "+tcp"),
		},
		check: func(c *caseLab) { c.healthy(); c.allExact() },
	},
	{
		name: "59 a stub in the client's namespace", reported: "systemd-resolved, dnsmasq",
		arrange: func(c *caseLab) {
			_, err := c.Start(lab.Spec{Name: "stub", Host: "client-a", Path: "dnsmasq", Ready: lab.ReadyListening(53), Args: []string{
				"--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts",
				"--server=" + lab.ServiceV4.Addr().String(), "--listen-address=127.0.0.1", "--bind-interfaces",
			}})
			c.must(err)
		},
		asks: []ask{glibc("a.good.test", stub), musl("b.good.test", stub), goResolver("c.good.test", stub), digAt(netip.MustParseAddr("127.0.0.1"), "d.silent.test")},
		check: func(c *caseLab) {
			c.healthy()
			c.namedOnce("d.silent.test", c.Upstream(0).V4().String())
			for _, t := range c.traces {
				if len(t.Upstreams) != 1 || t.Upstreams[0].Query == nil {
					c.t.Errorf("%s: no tree of the stub and CoreDNS", describe(t))
				}
			}
		},
	},
	{
		name: "87 a server block asks another of its CoreDNS over loopback", reported: "coredns/coredns#1680, #2549", serve: twoBlocks,
		asks:    []ask{dig("a.good.test"), dig("b.good.test", "+tcp"), dig("c.silent.test", "+time=9"), dig("d.servfail.test")},
		unasked: true, // at that port no packets are observed
		check: func(c *caseLab) {
			c.healthy()
			c.causedBy("c.silent.test", "upstream-timeout", "The upstream 192.168.49.10:53 did not answer, 4 times")
			c.causedBy("d.servfail.test", "upstream-error", "The upstream 192.168.49.10:53 answered SERVFAIL")
			for _, t := range c.traces {
				if slices.ContainsFunc(t.Upstreams, func(u trace.Upstream) bool { return u.Query == nil || len(u.Upstreams) == 0 }) {
					c.t.Errorf("%s: no record behind an attempt", describe(t))
				}
			}
		},
	},
}

// twoBlocks starts CoreDNS with a block that asks the upstream, and one that asks that.
func twoBlocks(c *caseLab) {
	first := c.block("", "forward . 127.0.0.1:5301")
	second := strings.Replace(c.block("", "forward . $UP {\n max_fails 0\n }"), ".:53 ", ".:5301 ", 1)
	_, err := c.StartCoreDNS(first + second)
	c.must(err)
}

// longer is more than the servers of a chain go on after their client.
var longer = []string{"--timeout", "7s"}

const stub = "nameserver 127.0.0.1\n"

// chain starts a server on client-b, and CoreDNS, which asks it; both with options of forward.
func chain(first, second string) func(c *caseLab) {
	return func(c *caseLab) {
		_, err := c.StartCoreDNSOn("client-b", c.block("", "forward . $UP {\n "+second+"\n }"))
		c.must(err)
		_, err = c.StartCoreDNS(c.block("", "forward . "+c.Host("client-b").V4.String()+" {\n "+first+"\n }"))
		c.must(err)
	}
}

var inChain = []ask{
	dig("a.good.test"), dig("b.good.test", "+tcp"), dig("a.silent.test"), dig("b.silent.test", "+tcp"), dig("a.servfail.test"), dig("a.truncated.test"),
}

// onlyTheEndIsSilent wants the silent upstream named once, and not the server that waits for it.
func onlyTheEndIsSilent(c *caseLab) {
	c.healthy()
	for _, name := range []string{"a.silent.test", "b.silent.test"} {
		c.namedOnce(name, c.Upstream(0).V4().String())
		for _, f := range c.one(name).Diagnosis {
			if f.Code == "upstream-timeout" && strings.Contains(f.Summary, c.Host("client-b").V4.String()) {
				c.t.Errorf("%s: %s", name, f.Summary)
			}
		}
	}
}

// namedOnce wants one finding that an upstream of a lookup did not answer.
func (c *caseLab) namedOnce(name, upstream string) {
	c.t.Helper()
	t, times := c.one(name), 0
	for _, f := range t.Diagnosis {
		if f.Code == "upstream-timeout" && strings.Contains(f.Summary, upstream) {
			times++
		}
	}
	if times != 1 {
		c.t.Errorf("%s: %s is named %d times as silent: %s", describe(t), upstream, times, words(t))
	}
}

// healthy wants nothing to be said of what was answered below good.test.
func (c *caseLab) healthy() {
	c.t.Helper()
	for _, t := range c.traces {
		if strings.HasSuffix(t.QName, ".good.test.") && (t.Outcome != trace.OutcomeAnswered || len(t.Diagnosis) > 0) {
			c.t.Errorf("%s is healthy: %s", describe(t), words(t))
		}
	}
}

// allExact wants no packets of attempts to be inferred.
func (c *caseLab) allExact() {
	c.t.Helper()
	for _, t := range c.traces {
		if slices.ContainsFunc(t.Upstreams, func(u trace.Upstream) bool { return u.Join != trace.JoinExact }) {
			c.t.Errorf("%s: a join that is not exact", describe(t))
		}
	}
}

func digV6(name string, args ...string) ask {
	return func(c *caseLab) { digAt(lab.ServiceV6.Addr(), name, args...)(c) }
}

// atServer asks from the CoreDNS pod.
func atServer(server, name string, args ...string) ask {
	return func(c *caseLab) { c.digFrom(lab.CoreDNS, netip.MustParseAddr(server), name, args...) }
}

// crowd asks n times for a name from each client pod.
func crowd(n int, name string) (asks []ask) {
	for range n {
		for _, host := range []string{"client-a", "client-b"} {
			asks = append(asks, from(host, lab.Query{Name: name}))
		}
	}
	return asks
}

// elsewhere are names for which the upstream is asked for others.
const elsewhere = `autopath $DIR/resolv.conf
 template ANY ANY cluster.local {
  rcode NXDOMAIN
 }
 template ANY ANY templated.test {
  answer "{{ .Name }} 60 IN CNAME templated.two.test."
 }
 file $DIR/one.test one.test
 file $DIR/two.test two.test
 cache 30
 forward . $UP`

func elsewhereFiles(c *caseLab) {
	const soa = "@ 60 SOA ns admin 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.1\n"
	for name, text := range map[string]string{
		"resolv.conf": "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
		"one.test":    "$ORIGIN one.test.\n" + soa + "good 60 CNAME good.two.test.\nfailing 60 CNAME failing.two.test.\n",
		"two.test":    "$ORIGIN two.test.\n" + soa + "good 60 CNAME beyond.good.test.\nfailing 60 CNAME beyond.servfail.test.\ntemplated 60 CNAME templated.good.test.\n",
	} {
		c.must(os.WriteFile(filepath.Join(c.Dir(), name), []byte(text), 0o600))
	}
}

// overVXLAN puts an upstream behind a tunnel from the node.
func overVXLAN(c *caseLab) {
	for _, end := range []struct{ host, local, remote, inner string }{
		{lab.Node, "192.168.49.2", "192.168.49.1", "192.168.60.2/24"}, {lab.Upstream, "192.168.49.1", "192.168.49.2", "192.168.60.1/24"},
	} {
		c.inHost(end.host, "ip", "link", "add", "vx", "type", "vxlan", "id", "42", "local", end.local, "remote", end.remote, "dstport", "4789")
		c.inHost(end.host, "ip", "addr", "add", end.inner, "dev", "vx")
		c.inHost(end.host, "ip", "link", "set", "vx", "up")
	}
	c.inHost(lab.Upstream, "ip", "route", "replace", lab.PodNetV4.String(), "via", "192.168.60.2")
	s, err := c.Serve(lab.Upstream, netip.MustParseAddrPort("192.168.60.1:53"))
	c.must(err)
	s.Set("silent.test.", lab.Behaviour{Silent: true})
}
