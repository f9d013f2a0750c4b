package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	cachedZone = "cached.test"
	// names is how many names the cached queries ask for.
	names = 100
	// clients is how many queries are under way at a time: enough to keep the
	// server at work, few enough to leave it a processor of a small machine.
	clients = 4

	answerTimeout = 5 * time.Second
	probeTimeout  = 100 * time.Millisecond
)

// The workloads: answered from the cache, or by asking the upstream.
const (
	cachedName    = "cached"
	forwardedName = "forwarded"
)

// workload is what is asked.
type workload struct {
	name    string
	queries int
}

// packets returns the queries of a client: from the cached zone, in turn, or
// from another one.
func (w workload) packets() ([][]byte, error) {
	zone := cachedZone
	if w.name == forwardedName {
		zone = "forwarded.test"
	}
	var all [][]byte
	for i := range names {
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("host%d.%s.", i, zone), dns.TypeA)
		m.SetEdns0(1232, false)
		p, err := m.Pack()
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// ask sends n queries from several clients, waits for all answers, and returns how
// long each took.
func (w workload) ask(addr string, n int) ([]time.Duration, error) {
	errs, took := make([]error, clients), make([][]time.Duration, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { took[i], errs[i] = w.client(addr, (n+clients-1)/clients) })
	}
	wg.Wait()
	return slices.Concat(took...), errors.Join(errs...)
}

func (w workload) client(addr string, n int) ([]time.Duration, error) {
	packets, err := w.packets()
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	took := make([]time.Duration, 0, n)
	for i := range n {
		begin := time.Now()
		if err := exchange(conn, packets[i%len(packets)], uint16(i), answerTimeout); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// exchange sends a query with the given id and reads its answer.
func exchange(conn net.Conn, packet []byte, id uint16, timeout time.Duration) error {
	binary.BigEndian.PutUint16(packet, id)
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var answer [1500]byte
	for {
		n, err := conn.Read(answer[:])
		if err != nil {
			return err
		}
		if n < 12 || binary.BigEndian.Uint16(answer[:]) != id {
			continue
		}
		if rcode := answer[3] & 0xf; rcode != dns.RcodeSuccess {
			return fmt.Errorf("CoreDNS answered %s", dns.RcodeToString[int(rcode)])
		}
		return nil
	}
}

// probe asks one question.
func probe(addr string) error {
	w := workload{name: cachedName}
	packets, err := w.packets()
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := exchange(conn, packets[0], 1, probeTimeout); err != nil {
		time.Sleep(probeTimeout / 10)
		return err
	}
	return nil
}

// startUpstream runs the server that CoreDNS forwards to.
func startUpstream() (*dns.Server, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600},
			A:   net.IPv4(192, 0, 2, 1),
		}}
		// A lost answer shows as a query that CoreDNS does not answer.
		_ = w.WriteMsg(m)
	})}
	go func() { _ = srv.ActivateAndServe() }()
	return srv, nil
}
