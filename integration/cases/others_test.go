package cases

import (
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// goesOnOverTCP wants what is asked over TCP to be of one call with a truncated answer. (What
// glibc asks once more, as it had too little room for the answer, may as well be another
// call.)
func (c *caseLab) goesOnOverTCP(name string) {
	c.t.Helper()
	all := c.of(name)
	tcp, joined := 0, 0
	for _, t := range all {
		if t.Resolution == "" {
			c.t.Errorf("%s: it is of no call", describe(t))
		}
		if t.Exchange.Protocol == "udp" {
			continue
		}
		tcp++
		if slices.ContainsFunc(all, func(u *trace.Trace) bool { return u.Exchange.Truncated && u.Resolution == t.Resolution }) {
			joined++
		}
	}
	// glibc asks all over again where the answer does not fit its buffer.
	if tcp > 0 && joined == 0 {
		c.t.Errorf("%s: none of %d lookups over TCP is of a call that was truncated", name, tcp)
	}
}

// callsOfOne are calls in each of which a lookup ends long before another.
var callsOfOne = func() (asks []ask) {
	for client, resolve := range map[string]func(name, resolvConf string) ask{"glibc": glibc, "musl": musl, "go": goResolver} {
		for _, zone := range []string{"lateaaaa", "noaaaa", "silentaaaa", "noanswertcp"} {
			asks = append(asks, resolve(client+"."+zone+".test", once))
		}
	}
	return asks
}()

// others are the rows about lookups that reach their servers as they should: what is
// checked is that their packets are where they belong.
var others = []lookupCase{
	{
		name: "05 AAAA contradicts A", reported: "moby/vpnkit#509, docker/for-mac#5088, rancher/rancher#5041",
		asks:  []ask{glibc("a.nxaaaa.test", once), musl("b.nxaaaa.test", once)},
		check: func(c *caseLab) { c.oneCall("a.nxaaaa.test"); c.oneCall("b.nxaaaa.test") },
	},
	{
		name: "06 the upstream ignores AAAA", reported: "systemd/systemd#22575, aredn/aredn#2029",
		asks: []ask{glibc("a.noaaaa.test", once), musl("b.noaaaa.test", once)},
		check: func(c *caseLab) {
			for _, name := range []string{"a.noaaaa.test", "b.noaaaa.test"} {
				for _, t := range c.of(name) {
					if answered := t.RCode == "NOERROR"; answered != (t.QType == "A") {
						c.t.Errorf("%s: %s", describe(t), words(t))
					}
				}
			}
		},
	},
	{
		name: "06 two upstreams ignore AAAA", reported: "systemd/systemd#22575, aredn/aredn#2029", plugins: "forward . $UP $UP1",
		asks: []ask{glibc("a.noaaaa.test", once), glibc("b.noaaaa.test", once)},
		check: func(c *caseLab) {
			for _, t := range c.traces {
				if t.QType == "AAAA" && (len(t.Diagnosis) == 0 || slices.Contains(codes(t), "type-ignored") && slices.Contains(codes(t), "upstream-timeout")) {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "08 a search suffix answers", reported: "openshift/origin#17316, kubernetes/kubernetes#49113",
		plugins: searchSuffixes,
		asks: []ask{
			glibc("api-late.good.test", searching("default.svc.cluster.local svc.cluster.local cluster.local corp.test")),
			glibc("api-first.good.test", searching("corp.test default.svc.cluster.local")),
			glibc("api-broken.good.test", searching("default.svc.cluster.local broken.test svc.cluster.local")),
			musl("api-musl.good.test", searching("default.svc.cluster.local broken.test svc.cluster.local")),
		},
	},
	{
		name: "10 a failure out of the cache", reported: "coredns/coredns#3927, #5074",
		plugins: "cache 30\n forward . $UP",
		asks:    []ask{inTurn(dig("a.servfail.test"), dig("a.servfail.test"), dig("a.servfail.test"))},
		check: func(c *caseLab) {
			var cache []string
			for _, t := range c.of("a.servfail.test") {
				cache = append(cache, t.Query.Cache)
			}
			if !slices.Equal(cache, []string{trace.CacheMiss, trace.CacheHit, trace.CacheHit}) {
				c.t.Errorf("cache: %v", cache)
			}
		},
	},
	{
		name: "11 refused for too many queries at once", reported: "coredns/coredns#3640",
		plugins: "forward . $UP {\n max_concurrent 2\n }",
		asks:    numbered(4, "late.test"),
	},
	{
		name: "14 a truncated answer moves the client to TCP", reported: "coredns/coredns#6149, containers/aardvark-dns#605",
		asks: []ask{
			glibc("a.many.test", once), glibc("b.many.test", once), glibc("c.many.test", once), glibc("d.many.test", once),
			goResolver("e.many.test", once), musl("f.many.test", once),
		},
		check: func(c *caseLab) {
			for _, name := range []string{"a.many.test", "b.many.test", "c.many.test", "d.many.test", "e.many.test", "f.many.test"} {
				c.goesOnOverTCP(name)
				for _, t := range c.of(name) {
					if slices.ContainsFunc(t.Diagnosis, func(f trace.Finding) bool { return f.Code == "client-gave-up" }) {
						c.t.Errorf("%s: %s", describe(t), words(t))
					}
				}
			}
		},
	},
	{
		name: "14 glibc asks again, with more room for the answers", reported: "sourceware.org, bug 16574",
		arrange: func(c *caseLab) {
			c.Upstream(0).Set("sixty.test.", lab.Behaviour{Records: 60})
			c.Upstream(0).Set("hundreds.test.", lab.Behaviour{Records: 150})
		},
		asks: []ask{glibc("a.many.test", asEver), glibc("a.sixty.test", asEver), glibc("a.hundreds.test", asEver), musl("b.sixty.test", asEver), goResolver("c.sixty.test", asEver)},
		check: func(c *caseLab) {
			for _, name := range []string{"a.many.test", "a.sixty.test", "a.hundreds.test", "b.sixty.test", "c.sixty.test"} {
				c.oneCall(name)
			}
		},
	},
	{
		name: "14 one call, of which one lookup is late, silent or cut", reported: "golang/go, net: the resolver's two sockets",
		asks: callsOfOne,
		check: func(c *caseLab) {
			for _, client := range []string{"glibc", "musl", "go"} {
				for _, zone := range []string{"lateaaaa", "noaaaa", "silentaaaa", "noanswertcp"} {
					c.oneCall(client + "." + zone + ".test")
				}
			}
		},
	},
	{
		name: "16 extended codes and other operations", reported: "coredns/coredns#5785, PowerDNS/pdns#12250",
		asks: []ask{
			message(edns100("edns.good.test.")), message(update("update.test.")),
			digUpstream("a.servfail.test"), digUpstream("a.refused.test"), dig("b.refused.test"),
		},
		unrecorded: true,
		check: func(c *caseLab) {
			for _, name := range []string{"edns.good.test", "update.test", "a.servfail.test", "a.refused.test", "b.refused.test"} {
				if t := c.one(name); t.Outcome != trace.OutcomeAnswered {
					c.t.Errorf("%s", describe(t))
				}
			}
		},
	},
	{
		name: "17 truncated, and never asked over TCP", reported: "coredns/coredns#6149, alpinelinux/docker-alpine#326",
		plugins: "cache 30\n forward . $UP",
		asks:    []ask{musl("a.truncated.test", once), dig("b.truncated.test", "+ignore")},
		check: func(c *caseLab) {
			for _, name := range []string{"a.truncated.test", "b.truncated.test"} {
				for _, t := range c.of(name) {
					if t.Exchange.Protocol == "udp" && !t.Exchange.Truncated {
						c.t.Errorf("%s: not truncated", describe(t))
					}
				}
			}
		},
	},
	{
		name: "20 CoreDNS means not to answer", reported: "coredns/coredns, plugin acl",
		plugins: "acl dropped.test {\n drop\n }\n forward . $UP",
		asks:    []ask{dig("a.dropped.test", "+time=2"), dig("a.good.test")},
		check: func(c *caseLab) {
			t := c.one("a.dropped.test")
			if t.Outcome != trace.OutcomeUnanswered || t.Query == nil || t.Query.Outcome != trace.OutcomeNoResponse {
				c.t.Errorf("%s: the record is %+v", describe(t), t.Query)
			}
		},
	},
	{
		name: "22 a wrong checksum, a wrong way back", reported: "flannel-io/flannel#1279, k3s-io/k3s#2013, coredns/coredns#5352",
		unrecorded: true,
		arrange: func(c *caseLab) {
			c.inHost(lab.CoreDNS, "/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter")
		},
		asks: []ask{inTurn(spoiled("checksum.good.test."), noWayBack, dig("back.good.test", "+time=2"))},
		check: func(c *caseLab) {
			for name, reason := range map[string]string{"checksum.good.test": "UDP_CSUM", "back.good.test": "IP_RPFILTER"} {
				t := c.one(name)
				if ex := t.Exchange; t.Outcome != trace.OutcomeDropped || len(ex.Drops) == 0 || ex.Drops[0].Reason != reason {
					c.t.Errorf("%s: drops %+v, expected %s", describe(t), ex.Drops, reason)
				}
			}
		},
	},
	{
		name: "41 the upstream refuses too many at once", reported: "kubernetes/dns#199",
		asks: numbered(8, "limited.test"),
	},
	{
		name: "42 one name is broken", reported: "coredns/coredns#7184",
		plugins: "cache 30 {\n servfail 0\n }\n forward . $UP",
		asks:    []ask{brokenAmongGood(12)},
	},
}

// searchSuffixes know nothing of one, answer anything below another, and fail below a
// third.
const searchSuffixes = `template ANY ANY cluster.local {
  rcode NXDOMAIN
 }
 template IN A corp.test {
  answer "{{ .Name }} 60 IN A 203.0.113.99"
 }
 template ANY ANY broken.test {
  rcode SERVFAIL
 }
 forward . $UP`

func searching(list string) string {
	return fmt.Sprintf("nameserver %s\nsearch %s\noptions ndots:5 timeout:2 attempts:1\n", lab.ServiceV4.Addr(), list)
}

// numbered asks for n names of a zone.
func numbered(n int, zone string) []ask {
	var all []ask
	for i := range n {
		all = append(all, dig(fmt.Sprintf("n%d.%s", i, zone)))
	}
	return all
}

// brokenAmongGood asks n times for a name that fails, and as often for ones that do not.
func brokenAmongGood(n int) ask {
	var all []ask
	for i := range n {
		all = append(all, dig("a.servfail.test"), dig(fmt.Sprintf("n%d.good.test", i%4)))
	}
	return inTurn(all...)
}

// edns100 is a query of a version of EDNS that does not exist.
func edns100(name string) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.SetEdns0(dns.DefaultMsgSize, false)
	m.IsEdns0().SetVersion(100)
	return m
}

// update adds a record to a zone (RFC 2136).
func update(zone string) *dns.Msg {
	m := new(dns.Msg).SetUpdate(zone)
	m.Insert([]dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: "x." + zone, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: lab.AddrA(zone).AsSlice(),
	}})
	return m
}

// noWayBack gives the CoreDNS pod another way to the client than the one that the
// client's packets come by.
func noWayBack(c *caseLab) {
	c.inHost(lab.CoreDNS, "ip", "route", "add", c.Host("client-a").V4.String()+"/32", "dev", "lo")
}
