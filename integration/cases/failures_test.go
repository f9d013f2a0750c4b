package cases

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// failures are the rows about servers that fail otherwise than by silence: what is checked is
// that each cause is said once, in its own words, and nothing that is not so.
var failures = []lookupCase{
	{
		name: "80 the upstream ends each connection", reported: "coredns/coredns#2230", plugins: "forward closed.test " + farAddress + ":1053 {\n force_tcp\n }\n forward reset.test " + farAddress + ":1054 {\n force_tcp\n }",
		tracer: []string{"--port", "53", "--port", "1053", "--port", "1054"},
		arrange: func(c *caseLab) {
			c.far()
			c.farServes(1053, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 512))
				conn.Close()
			})
			c.farServes(1054, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 512))
				_ = conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			})
		},
		asks: []ask{inTurn(dig("a.closed.test"), dig("a.reset.test", "+tcp"), dig("b.reset.test"))},
		check: func(c *caseLab) {
			for name, words := range map[string]string{"a.closed.test": "(EOF), 2 times", "a.reset.test": "(connection reset by peer), 2 times", "b.reset.test": "(connection reset by peer), 2 times"} {
				c.attemptsOf(name, 2)
				c.causedBy(name, "upstream-error", "was reached, and CoreDNS got no answer from it "+words)
			}
		},
	},
	{
		name: "81 an upstream that cannot be asked", reported: "coredns/coredns#2426, #2287", unasked: true,
		plugins: "forward tls.test tls://" + farAddress + " {\n tls_servername dns.test\n }\n forward away.test 203.0.113.9",
		arrange: func(c *caseLab) {
			c.far()
			certificate := selfSigned(c)
			c.farServes(853, func(conn net.Conn) {
				_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
				conn.Close()
			})
			c.inHost(lab.CoreDNS, "ip", "route", "add", "unreachable", "203.0.113.0/24")
		},
		asks: []ask{dig("a.tls.test"), dig("a.away.test")},
		check: func(c *caseLab) {
			c.causedBy("a.tls.test", "upstream-error", "could not be asked (certificate signed by unknown authority), 2 times")
			c.causedBy("a.away.test", "upstream-error", "could not be asked (no route to host), 2 times")
		},
	},
	{
		name: "82 the plugin loop, and a silent upstream", reported: "coredns/coredns#4211", plugins: "loop\n forward . $UP",
		arrange: func(c *caseLab) { c.Upstream(0).Set(".", lab.Behaviour{Type: 13, Silent: true}) },
		asks:    []ask{inTurn(dig("a.good.test"), pause(4*time.Second))},
		check: func(c *caseLab) {
			c.healthy()
			for _, t := range c.traces {
				if strings.Contains(words(t), "forwarding-loop") {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "83 kube-proxy rejects what is for a Service without endpoints", reported: "kubernetes/kubernetes#44890", unrecorded: true,
		arrange: func(c *caseLab) {
			c.must(c.SetEndpoints())
			for _, protocol := range []string{"udp", "tcp"} {
				c.inHost(lab.Node, "iptables", "-I", "FORWARD", "-d", lab.ServiceV4.Addr().String(), "-p", protocol, "--dport", "53", "-j", "REJECT")
			}
		},
		asks: []ask{dig("a.good.test", "+time=1"), musl("b.good.test", once), dig("c.good.test", "+time=1", "+tcp")},
		check: func(c *caseLab) {
			for _, t := range c.traces {
				if strings.Join(codes(t), " ") != "dropped-by-netfilter" || !strings.Contains(words(t), "rejected") || !strings.Contains(words(t), "endpointslices") {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "84 the first nameserver fails, the second answers", reported: "alpinelinux/docker-alpine#118",
		arrange: func(c *caseLab) { c.Upstream(1).Set("servfail.test.", lab.Behaviour{}) },
		asks:    []ask{goResolver("a.servfail.test", twoNameservers), glibc("b.servfail.test", twoNameservers), musl("c.good.test", twoNameservers)},
		check: func(c *caseLab) {
			for _, name := range []string{"a.servfail.test", "b.servfail.test", "c.good.test"} {
				c.oneCall(name)
			}
		},
	},
	{
		name: "85 one of two endpoints is gone, and the client asks again from its socket", reported: "kubernetes/kubernetes#100698", unrecorded: true,
		arrange: func(c *caseLab) { c.must(c.SetEndpoints(goneEndpoint, netip.AddrPortFrom(c.Host(lab.CoreDNS).V4, 53))) },
		asks: func() (all []ask) {
			for i := range 6 {
				again := lab.Query{Name: fmt.Sprintf("n%d.good.test", i), RetransmitAfter: 1500 * time.Millisecond, Timeout: 8 * time.Second}
				all = append(all, from("client-a", again), musl(fmt.Sprintf("m%d.good.test", i), asEver), glibc(fmt.Sprintf("g%d.good.test", i), asEver))
			}
			return all
		}(),
		check: func(c *caseLab) {
			for _, t := range c.traces {
				if want := len(t.Exchange.Drops) > 0; want != (strings.Join(codes(t), " ") == "stale-endpoint") || want && !strings.Contains(t.Diagnosis[0].Summary, goneEndpoint.String()) {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "86 what comes is no DNS message", reported: "systemd/systemd#8451, a port that something else serves",
		arrange: func(c *caseLab) {
			for zone, mangle := range garbage {
				c.Upstream(0).Set(zone+".test.", lab.Behaviour{Mangle: mangle})
			}
		},
		asks: func() (all []ask) {
			for zone := range garbage {
				all = append(all, dig("a."+zone+".test"), digUpstream("b."+zone+".test"), digUpstream("c."+zone+".test", "+tcp"))
			}
			return all
		}(),
		check: func(c *caseLab) {
			for zone := range garbage {
				c.causedBy("a."+zone+".test", "response-rejected", "The server rejected what the upstream 192.168.49.10:53 answered (malformed)")
				c.causedBy("b."+zone+".test", "response-rejected", "A response came, and the client rejected it (malformed)")
				c.causedBy("c."+zone+".test", "response-rejected", "A response came, and the client rejected it (malformed)")
			}
		},
	},
}

// garbage is what a server sends in an answer's stead.
var garbage = map[string]func([]byte) []byte{
	"empty":  func([]byte) []byte { return nil },
	"one":    func(w []byte) []byte { return w[:1] },
	"short":  func(w []byte) []byte { return w[:7] },
	"header": func(w []byte) []byte { return w[:12] },
	"zeros":  func([]byte) []byte { return make([]byte, 40) },
	"text":   func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") },
}

// goneEndpoint is an address that nobody has.
var goneEndpoint = netip.MustParseAddrPort("10.244.0.77:53")

const twoNameservers = "nameserver 192.168.49.10\nnameserver 192.168.49.11\noptions timeout:2 attempts:1\n"

// farAddress is of the upstream host, and of no Server there.
const farAddress = "192.168.62.1"

var farAddr = netip.MustParseAddr(farAddress)

// far gives the upstream host that address.
func (c *caseLab) far() {
	c.inHost(lab.Upstream, "ip", "addr", "add", farAddress+"/32", "dev", "lo")
	c.inHost(lab.Node, "ip", "route", "add", farAddress, "via", c.Upstream(0).V4().Addr().String())
}

// farServes takes TCP connections at a port of that address until the lab goes.
func (c *caseLab) farServes(port int, serve func(net.Conn)) {
	var listener net.Listener
	c.must(c.Host(lab.Upstream).Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf("%s:%d", farAddress, port))
		return err
	}))
	c.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

// selfSigned is a certificate that nobody trusts.
func selfSigned(c *caseLab) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.must(err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dns.test"}, DNSNames: []string{"dns.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	c.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// causedBy wants one cause of the one lookup of a name, in these words, beside what only many
// lookups show.
func (c *caseLab) causedBy(name, code, summary string) {
	c.t.Helper()
	t := c.one(name)
	var causes []string
	for _, f := range t.Diagnosis {
		if f.Code != "upstream-unhealthy" && f.Code != "server-overloaded" { // the latter is the machine's
			causes = append(causes, f.Code)
		}
	}
	if strings.Join(causes, " ") != code || !strings.Contains(words(t), summary) {
		c.t.Errorf("%s: want %s, %s: %s", describe(t), code, summary, words(t))
	}
}
