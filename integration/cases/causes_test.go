package cases

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// causes are the rows about faults that show in several ways at once: what is checked is that each
// lookup has one finding, which names the cause.
var causes = []lookupCase{
	{
		name: "120 TLS towards a plain port, plain towards a TLS port", reported: "coredns/coredns#4255", unasked: true,
		plugins: "forward tlstoplain.test tls://$UP:53 {\n tls_servername dns.test\n }\n forward tlstohttp.test tls://" + farAddress + ":8443\n" +
			"forward udptotls.test " + farAddress + ":853\n forward tcptotls.test " + farAddress + ":853 {\n force_tcp\n }\n forward tcptotls53.test " + farAddress + ":53 {\n force_tcp\n }",
		tracer: []string{"--port", "53", "--port", "853", "--port", "8443"},
		arrange: func(c *caseLab) {
			c.far()
			certificate := selfSigned(c)
			for _, port := range []int{53, 853} {
				c.farServes(port, func(conn net.Conn) {
					_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
					conn.Close()
				})
			}
			c.farServes(8443, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 512))
				_, _ = conn.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n"))
				conn.Close()
			})
		},
		asks: []ask{dig("a.tlstoplain.test"), dig("a.tlstohttp.test"), dig("a.udptotls.test"), dig("a.tcptotls.test"), dig("a.tcptotls53.test"),
			digFar("b.direct.test", "+tcp"), digFar("d.direct.test"), digUpstream("c.direct.test", "+tls", "-p", "53")},
		check: func(c *caseLab) {
			for name, want := range map[string][2]string{
				"a.tlstoplain.test": {"upstream-error", "could not be asked (EOF), after 1 timeout"},
				"a.tlstohttp.test":  {"upstream-error", "was asked over TLS, and does not speak it there (first record does not look like a TLS handshake), 2 times"},
				"a.udptotls.test":   {"dropped-no-socket", "Nothing listened for the query of attempt 1 to 192.168.62.1:853"},
				"a.tcptotls.test":   {"upstream-error", "was asked without TLS at port 853, which is for TLS (EOF), 2 times"},
				"a.tcptotls53.test": {"upstream-error", "was reached, and CoreDNS got no answer from it (EOF), 2 times"},
			} {
				c.causedBy(name, want[0], want[1])
				if t := c.one(name); len(t.Diagnosis) > 0 && !strings.Contains(strings.ToLower(t.Diagnosis[0].Advice), "tls") {
					c.t.Errorf("%s: the advice is %s", describe(t), t.Diagnosis[0].Advice)
				}
			}
		},
	},
	{
		name: "121 a firewall rejects", reported: "firewalld, a REJECT at each hook", unrecorded: true,
		plugins: "forward hook3.test " + farAddress + "\n forward hook4.test " + farAddress + "\n forward . $UP",
		arrange: func(c *caseLab) {
			c.far()
			for _, host := range []string{lab.Node, lab.CoreDNS, lab.Upstream} { // else the kernel keeps some of the errors to itself
				c.inHost(host, "/bin/sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit")
			}
			for i, at := range rejecting {
				for j, with := range rejectWith {
					match := lab.Match{Messages: lab.Queries, Network: "udp", Family: 4, Name: fmt.Sprintf("with%d.hook%d.test", j, i)}
					_, err := c.RuleAt(at, match, "-j", "REJECT", "--reject-with", with)
					c.must(err)
				}
			}
			for pod, at := range map[string]lab.Place{"tcp-out": lab.ClientOutput("tcp-out"), "tcp-forward": lab.NodeForward, "tcp-input": lab.ServerInput} {
				for _, with := range []string{"tcp-reset", "icmp-admin-prohibited"} {
					name := pod + with
					_, err := c.AddPod(name)
					c.must(err)
					if pod == "tcp-out" {
						at = lab.ClientOutput(name)
					}
					_, err = c.RuleAt(at, lab.Match{Messages: lab.Queries, Network: "tcp", Family: 4, Extra: []string{"-s", c.Host(name).V4.String()}}, "-j", "REJECT", "--reject-with", with)
					c.must(err)
				}
			}
			c.inHost("client-b", "nft", "add table inet own; add chain inet own out { type filter hook output priority 0; }; add rule inet own out udp dport 53 reject")
		},
		asks: func() (all []ask) {
			for i := range rejecting {
				for j := range rejectWith {
					all = append(all, dig(fmt.Sprintf("with%d.hook%d.test", j, i)))
				}
			}
			for _, pod := range []string{"tcp-out", "tcp-forward", "tcp-input"} {
				for _, with := range []string{"tcp-reset", "icmp-admin-prohibited"} {
					all = append(all, func(c *caseLab) { c.digFrom(pod+with, lab.ServiceV4.Addr(), pod+"."+with+".test", "+tcp", "+time=2") })
				}
			}
			return append(all, func(c *caseLab) { c.digFrom("client-b", lab.ServiceV4.Addr(), "nft.test", "+time=2") },
				glibc("glibc.with0.hook0.test", once), musl("musl.with0.hook0.test", once), goResolver("go.with0.hook0.test", once))
		}(),
		check: func(c *caseLab) {
			for _, t := range c.traces {
				if strings.Join(codes(t), " ") != "dropped-by-netfilter" || !strings.Contains(words(t), "A firewall rule rejected") || !strings.Contains(words(t), "(hook ") {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
			for i, hook := range []string{"OUTPUT", "FORWARD", "INPUT", "OUTPUT", "INPUT"} {
				for j := range rejectWith {
					if t := c.one(fmt.Sprintf("with%d.hook%d.test", j, i)); !strings.Contains(words(t), "(hook "+hook+")") || hook != "OUTPUT" && !strings.Contains(words(t), "by ICMP (") {
						c.t.Errorf("%s: not at %s: %s", describe(t), hook, words(t))
					}
				}
			}
		},
	},
	{
		name: "122 an upstream mishandles a type", reported: "systemd/systemd#22575, coredns/coredns#5126, RFC 4074",
		arrange: func(c *caseLab) {
			for _, qtype := range mishandled {
				for _, code := range mishandlings {
					c.Upstream(0).Set(mishandledZone(qtype, code), lab.Behaviour{Type: qtype, Rcode: code})
				}
			}
		},
		asks: func() (all []ask) {
			for _, code := range mishandlings {
				zone := mishandledZone(dns.TypeAAAA, code)
				all = append(all, glibc("glibc."+zone, once), musl("musl."+zone, once), goResolver("go."+zone, once))
				for _, qtype := range mishandled {
					name := "dig." + mishandledZone(qtype, code)
					all = append(all, inTurn(dig(name), pause(time.Second), dig(name, dns.TypeToString[qtype])))
				}
			}
			return all
		}(),
		check: func(c *caseLab) {
			for _, t := range c.traces {
				switch {
				case t.QType == "A" && len(t.Diagnosis) > 0:
					c.t.Errorf("%s: %s", describe(t), words(t))
				case t.QType == "A":
				case strings.Join(codes(t), " ") != "upstream-error" || !strings.Contains(t.Diagnosis[0].Advice, t.QType):
					c.t.Errorf("%s: %s", describe(t), words(t))
				case strings.HasPrefix(t.QName, "dig.") && !strings.Contains(words(t), "answers A of "+t.QName+" and gives "+t.RCode+" for "+t.QType):
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "123 routes that lead nowhere, and IPv6 that is rejected", reported: "ip route prohibit, unreachable, blackhole; ip6tables REJECT", unrecorded: true,
		arrange: func(c *caseLab) {
			for i, kind := range []string{"prohibit", "unreachable", "blackhole"} {
				c.inHost(lab.Node, "ip", "route", "add", kind, fmt.Sprintf("203.0.113.%d/32", i+1))
			}
			for name, at := range map[string]lab.Place{"out6.test": lab.ClientOutput("client-a"), "forward6.test": lab.NodeForward, "input6.test": lab.ServerInput} {
				_, err := c.RuleAt(at, lab.Match{Messages: lab.Queries, Network: "udp", Family: 6, Name: name}, "-j", "REJECT")
				c.must(err)
			}
			_, err := c.DropAt(lab.ClientOutput("client-a"), lab.Match{Messages: lab.Queries, Network: "udp", Family: 6, Name: "dropped6.test"})
			c.must(err)
		},
		asks: []ask{
			digAt(netip.MustParseAddr("203.0.113.1"), "prohibit.good.test", "+time=2"), digAt(netip.MustParseAddr("203.0.113.2"), "unreachable.good.test", "+time=2"),
			digAt(netip.MustParseAddr("203.0.113.3"), "blackhole.good.test", "+time=2"), digAt(netip.MustParseAddr("203.0.113.3"), "tcp.good.test", "+time=2", "+tcp"),
			digAt(netip.MustParseAddr("203.0.113.1"), "tcpprohibit.good.test", "+time=2", "+tcp"),
			digAt(lab.ServiceV6.Addr(), "out6.test", "+time=2"), digAt(lab.ServiceV6.Addr(), "forward6.test", "+time=2"), digAt(lab.ServiceV6.Addr(), "input6.test", "+time=2"),
			digAt(lab.ServiceV6.Addr(), "dropped6.test", "+time=2"),
		},
		check: func(c *caseLab) {
			for name, summary := range map[string]string{
				"out6.test":     "A firewall rule rejected the client's query in namespace " + c.Host("client-a").Netns + " (hook OUTPUT): sending it failed there (EPERM)",
				"dropped6.test": "A firewall rule rejected or dropped the client's query in namespace " + c.Host("client-a").Netns + " (hook OUTPUT): sending it failed there (EPERM)",
				"forward6.test": "A firewall rule rejected the client's query by ICMP (port unreachable) in namespace " + c.Host(lab.Node).Netns,
				"input6.test":   "A firewall rule rejected the client's query by ICMP (port unreachable) in namespace " + c.Host(lab.CoreDNS).Netns,
			} {
				c.causedBy(name, "dropped-by-netfilter", summary)
			}
			for name, summary := range map[string]string{
				"prohibit.good.test": "route to 203.0.113.1", "unreachable.good.test": "route to 203.0.113.2", "blackhole.good.test": "no route to 203.0.113.3, or one that refuses",
			} {
				c.causedBy(name, "dropped-other", summary)
			}
		},
	},
}

// rejecting are the hooks at which a firewall rejects, and rejectWith its errors.
var (
	rejecting  = []lab.Place{lab.ClientOutput("client-a"), lab.NodeForward, lab.ServerInput, lab.ServerOutput, lab.UpstreamInput}
	rejectWith = []string{"icmp-port-unreachable", "icmp-admin-prohibited", "icmp-host-unreachable"}
)

// mishandled are types that an upstream answers with an error, of mishandlings.
var (
	mishandled   = []uint16{dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeTXT}
	mishandlings = []int{dns.RcodeNotImplemented, dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeFormatError}
)

func mishandledZone(qtype uint16, code int) string {
	return fmt.Sprintf("%s%s.test.", dns.RcodeToString[code], dns.TypeToString[qtype])
}

// digFar asks the far address.
func digFar(name string, args ...string) ask {
	return func(c *caseLab) { digAt(farAddr, name, append([]string{"+time=2"}, args...)...)(c) }
}
