package cases

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// connections are the rows about how clients use their sockets.
var connections = []lookupCase{
	{
		name: "60 over TCP, in small segments and behind each other", reported: "cilium/cilium#25877",
		asks: []ask{
			stream("a.good.test", 1), stream("b.good.test", 7), stream("c.slowest.test", 100, (*net.TCPConn).CloseWrite),
			from("client-a", lab.Query{Name: "d.slowest.test", Network: "tcp"}, lab.Query{Name: "e.slowest.test"}, lab.Query{Name: "f.good.test"}),
		},
		check: func(c *caseLab) {
			c.healthy()
			c.allExact()
			for _, name := range []string{"a.good.test", "b.good.test", "c.slowest.test", "d.slowest.test", "e.slowest.test", "f.good.test"} {
				if t := c.one(name); t.Outcome != trace.OutcomeAnswered || len(t.Diagnosis) > 0 {
					c.t.Errorf("%s: %s", describe(t), words(t))
				}
			}
		},
	},
	{
		name: "61 the client resets its connection", reported: "a client with a short timeout",
		asks: []ask{stream("a.slowest.test", 100, func(k *net.TCPConn) error { time.Sleep(50 * time.Millisecond); return k.SetLinger(0) }, (*net.TCPConn).Close)},
		check: func(c *caseLab) {
			if t := c.one("a.slowest.test"); strings.Join(codes(t), " ") != "client-gave-up" {
				c.t.Errorf("%s: %s", describe(t), words(t))
			}
		},
	},
	{
		name: "62 answers in another order than the queries, on one connection", reported: "RFC 7766, section 7", serve: otherOrder,
		asks:  []ask{from("client-a", lab.Query{Name: "a.good.test", Network: "tcp"}, lab.Query{Name: "b.good.test"}, lab.Query{Name: "c.good.test"})},
		check: (*caseLab).healthy,
	},
	{
		name: "63 a port for many IDs, an ID for many names", reported: "c-ares/c-ares#539, envoyproxy/envoy#7965",
		asks:  []ask{usedAgain},
		check: func(c *caseLab) { c.healthy(); c.allExact() },
	},
	{
		name: "64 twenty pods ask for one name at once", reported: "a Deployment that starts", asks: []ask{fromTwentyPods},
		check: func(c *caseLab) {
			c.healthy()
			if n := len(c.of("all.good.test")); n != 20 {
				c.t.Errorf("%d lookups", n)
			}
		},
	},
	{
		name: "65 connections to the upstream go nowhere", reported: "kubernetes/dns#745",
		plugins: "forward . $UP {\n force_tcp\n }",
		arrange: func(c *caseLab) {
			_, err := c.DropAt(lab.UpstreamInput, lab.Match{Network: "tcp", Messages: lab.Queries})
			c.must(err)
		},
		asks: []ask{inTurn(dig("a.good.test"), pause(dialling))},
		check: func(c *caseLab) {
			t := c.one("a.good.test")
			if len(t.Upstreams) != 1 || t.Upstreams[0].Exchange == nil || !strings.Contains(words(t), "firewall") {
				c.t.Errorf("%s: %s", describe(t), words(t))
			}
		},
	},
}

// dialling is for how long CoreDNS tries to connect, with its first attempts.
const dialling = 31 * time.Second

// from makes lookups over one socket of a host. What became of them is in the traces.
func from(host string, queries ...lab.Query) ask {
	return func(c *caseLab) { c.Client(host).ExchangeTogether(context.Background(), queries...) }
}

// stream asks over a connection whose segments have so many bytes, does something then, and waits
// for an answer.
func stream(name string, size int, then ...func(*net.TCPConn) error) ask {
	return func(c *caseLab) {
		var conn net.Conn
		err := c.Host("client-a").Do(func() (err error) {
			conn, err = net.DialTimeout("tcp", lab.ServiceV4.String(), 2*time.Second)
			return err
		})
		if err != nil {
			c.t.Error(err)
			return
		}
		defer conn.Close()
		if err := converse(conn.(*net.TCPConn), name, size, then); err != nil {
			c.t.Errorf("%s: %v", name, err)
		}
	}
}

func converse(conn *net.TCPConn, name string, size int, then []func(*net.TCPConn) error) error {
	query, err := new(dns.Msg).SetQuestion(name+".", dns.TypeA).Pack()
	if err != nil {
		return err
	}
	query = append([]byte{byte(len(query) >> 8), byte(len(query))}, query...)
	for len(query) > 0 {
		n := min(size, len(query))
		if _, err := conn.Write(query[:n]); err != nil {
			return err
		}
		query = query[n:]
	}
	for _, do := range then {
		if err := do(conn); err != nil {
			return err
		}
	}
	// One that was closed has no answer, which the trace tells.
	_, _ = (&dns.Conn{Conn: conn}).ReadMsg()
	return nil
}

// otherOrder serves DNS over TCP in CoreDNS's stead: the last of three queries is answered first.
func otherOrder(c *caseLab) {
	var listener net.Listener
	c.must(c.Host(lab.CoreDNS).Do(func() (err error) { listener, err = net.Listen("tcp", ":53"); return err }))
	c.t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return // nobody asked
		}
		defer conn.Close()
		d := &dns.Conn{Conn: conn}
		var queries [3]*dns.Msg
		for i := range queries {
			if queries[i], err = d.ReadMsg(); err != nil {
				return
			}
		}
		for i := len(queries) - 1; i >= 0; i-- {
			// A client that is gone is no concern of the server's.
			_ = d.WriteMsg(new(dns.Msg).SetReply(queries[i]))
		}
	}()
}

// usedAgain asks from one port with one ID for one name after the other, and with many IDs at once.
func usedAgain(c *caseLab) {
	for i := range 6 {
		from("client-a", lab.Query{Name: fmt.Sprintf("n%d.good.test", i), LocalPort: 40102, ID: 7})(c)
	}
	var together []lab.Query
	for i := range 20 {
		together = append(together, lab.Query{Name: fmt.Sprintf("m%d.slowest.test", i), LocalPort: 40103, ID: uint16(100 + i)})
	}
	from("client-a", together...)(c)
}

// fromTwentyPods asks from pods of its own, each from the same port.
func fromTwentyPods(c *caseLab) {
	start := make(chan bool)
	var wait sync.WaitGroup
	for i := range 20 {
		name := fmt.Sprintf("pod%d", i)
		if _, err := c.AddPod(name); err != nil {
			c.t.Error(err)
			continue
		}
		wait.Go(func() {
			<-start
			from(name, lab.Query{Name: "all.good.test", LocalPort: 5555})(c)
		})
	}
	close(start)
	wait.Wait()
}
