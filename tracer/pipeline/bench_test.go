package pipeline

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
	"github.com/dnstrace/dnstrace/tracer/export"
	"github.com/dnstrace/dnstrace/tracer/history"
)

// sighting is one packet of a lookup as the programs report it. The port of the client
// is another in each lookup.
type sighting struct {
	kind           capture.Kind
	netns, ifindex uint32
	response       bool
	src, dst       netip.AddrPort
	nat            *capture.NAT
	pid            int
}

// Addresses of the benchmarks: a pod, a Service, the pod behind it.
var (
	pod     = netip.MustParseAddr("10.244.0.4")
	service = netip.MustParseAddrPort("10.96.0.10:53")
	server  = netip.MustParseAddrPort("10.244.0.2:53")
)

// onLoopback is a lookup whose client and server share a namespace.
func onLoopback() []sighting {
	client, local := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.1:53")
	return []sighting{
		{capture.TX, 1, 1, false, client, local, nil, 100},
		{capture.RX, 1, 1, false, client, local, nil, 0},
		{capture.TX, 1, 1, true, local, client, nil, 200},
		{capture.RX, 1, 1, true, local, client, nil, 0},
	}
}

// throughService is a lookup from pod to pod through a bridge and a Service.
func throughService() []sighting {
	client := netip.AddrPortFrom(pod, 0)
	nat := &capture.NAT{Original: capture.Tuple{Src: client, Dst: service}, Reply: capture.Tuple{Src: server, Dst: client}}
	return []sighting{
		{capture.TX, 1, 2, false, client, service, nil, 100},
		{capture.RX, 2, 5, false, client, service, nil, 0},
		{capture.RX, 2, 4, false, client, service, nil, 0},
		{capture.TX, 2, 4, false, client, server, nat, 0},
		{capture.TX, 2, 6, false, client, server, nat, 0},
		{capture.RX, 3, 2, false, client, server, nil, 0},
		{capture.TX, 3, 2, true, server, client, nil, 200},
		{capture.RX, 2, 6, true, server, client, nil, 0},
		{capture.TX, 2, 5, true, service, client, nat, 0},
		{capture.RX, 1, 2, true, service, client, nil, 0},
	}
}

// atSockets is the same where arrival and reading are seen as well.
func atSockets() []sighting {
	client := netip.AddrPortFrom(pod, 0)
	way := throughService()
	taken := []sighting{
		{capture.Delivered, 3, 0, false, client, server, nil, 0},
		{capture.Read, 3, 0, false, client, server, nil, 200},
	}
	answered := []sighting{
		{capture.Delivered, 1, 0, true, service, client, nil, 0},
		{capture.Read, 1, 0, true, service, client, nil, 100},
	}
	return slices.Concat(way[:6], taken, way[6:], answered)
}

// replay is a source that makes up the lookups of a busy node: so many names,
// asked in turn, at so many a second.
type replay struct {
	lookup  []sighting
	queries [][]byte
	answers [][]byte
	nat     capture.NAT // of the packet that is delivered
	now     int64
	asked   int
	packet  capture.Packet
	// records takes the server's record of a lookup, as it comes from its socket; nil: it
	// makes none.
	records  func(line []byte)
	record   trace.Query
	line     []byte
	clock    capture.Clock
	observes capture.Observes
}

const (
	names     = 500
	perSecond = 10000
)

func name(i int) string { return fmt.Sprintf("n%d.svc.cluster.example.com.", i) }

func newReplay(b *testing.B, lookup []sighting) *replay {
	b.Helper()
	r := &replay{lookup: lookup, now: capture.Now()}
	for i := range names {
		q := new(dns.Msg).SetQuestion(name(i), dns.TypeA)
		q.SetEdns0(1232, false)
		a := new(dns.Msg).SetReply(q)
		a.SetEdns0(1232, false)
		a.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30},
			A:   netip.MustParseAddr("192.0.2.1").AsSlice(),
		}}
		for _, m := range []*dns.Msg{q, a} {
			wire, err := m.Pack()
			if err != nil {
				b.Fatal(err)
			}
			if m == q {
				r.queries = append(r.queries, wire)
			} else {
				r.answers = append(r.answers, wire)
			}
		}
	}
	return r
}

// Poll implements Source: the lookups of one round.
func (r *replay) Poll(deliver func(*capture.Packet)) (int64, error) {
	const round = perSecond * int(pollBusy) / int(time.Second)
	for range round {
		r.one(deliver)
		r.now += int64(time.Second) / perSecond
	}
	return r.now, nil
}

func (r *replay) one(deliver func(*capture.Packet)) {
	n := r.asked % names
	client := netip.AddrPortFrom(r.lookup[0].src.Addr(), uint16(20000+r.asked%20000))
	id := uint16(r.asked)
	r.asked++
	for i := range r.lookup {
		s := &r.lookup[i]
		payload, skb, src, dst := r.queries[n], uint64(r.asked)<<1, client, s.dst
		if s.response {
			payload, skb, src, dst = r.answers[n], skb|1, s.src, client
		}
		payload[0], payload[1] = byte(id>>8), byte(id)
		r.packet = capture.Packet{
			Time: r.now + int64(i)*5000, SKB: skb, Kind: s.kind, Protocol: trace.TransportUDP,
			Src: src, Dst: dst, NetNS: s.netns, NetNSName: "cni-5c6b", IfIndex: s.ifindex, IfName: "eth0",
			Payload: payload, PayloadLen: len(payload), PID: s.pid, Comm: "dnsperf",
		}
		if s.nat != nil {
			r.nat = *s.nat
			r.nat.Original.Src, r.nat.Reply.Dst = client, client
			r.packet.NAT = &r.nat
		}
		deliver(&r.packet)
	}
	if r.records != nil {
		r.serve(n, id, client, r.now+20_000)
	}
}

// serve makes the record of a server that answers from its cache.
func (r *replay) serve(n int, id uint16, client netip.AddrPort, at int64) {
	q, question := &r.record, r.queries[n][12:]
	q.Time = r.clock.Wall(at)
	q.Flow = trace.NewFlow(trace.TransportUDP, client, id, dns.TypeA, dns.ClassINET, question[:len(name(n))+1])
	q.TraceID = trace.NewTraceID(q.Time, q.Flow)
	size := len(r.answers[n])
	q.DNS = trace.DNS{ClientIP: client.Addr(), ClientPort: client.Port(), QName: name(n), QType: "A", QClass: "IN", Protocol: "udp", ID: id,
		RequestSize: len(r.queries[n]), BufSize: 1232, RCode: "NOERROR", ResponseSize: &size, Duration: trace.SecondsPtr(9 * time.Microsecond)}
	r.line = q.AppendJSON(r.line[:0])
	r.records(r.line)
}

// fromCache is what all records of such a server have in common.
func fromCache() trace.Query {
	hop := func(plugin string, parent *int, start time.Duration) trace.Hop {
		return trace.Hop{Plugin: plugin, Parent: parent, Start: trace.Seconds(start), Duration: trace.SecondsPtr(8*time.Microsecond - start)}
	}
	first, second, third := 0, 1, 2
	return trace.Query{
		ServerIP: server.Addr(), ServerPort: server.Port(), Zone: ".", Cache: trace.CacheHit, AnsweredBy: "cache", Outcome: trace.OutcomeAnswered,
		Hops: []trace.Hop{hop("prometheus", nil, 500), hop("errors", &first, 900), hop("loadbalance", &second, 1300), hop("cache", &third, 1700)},
	}
}

// Observes implements Source.
func (r *replay) Observes() capture.Observes { return r.observes }

// Losses implements Source.
func (r *replay) Losses() []capture.Loss { return nil }

// Counters implements Source.
func (r *replay) Counters() capture.Counters { return capture.Counters{Emitted: uint64(r.asked)} }

// ThresholdChanges implements Source.
func (r *replay) ThresholdChanges() []capture.ThresholdChange { return nil }

// BenchmarkLookup is what `dnstrace run` does with one lookup behind the rings:
// pairing, assembly, diagnosis, the trace written and kept, as by default; sockets is one
// that is seen at sockets as well, recorded one of which the server sends a record, too.
func BenchmarkLookup(b *testing.B) {
	for name, lookup := range map[string][]sighting{"loopback": onLoopback(), "service": throughService(), "sockets": atSockets(), "recorded": atSockets()} {
		b.Run(name, func(b *testing.B) {
			out, err := export.Open("file:"+filepath.Join(b.TempDir(), "records.jsonl"), func(err error) { b.Error(err) })
			if err != nil {
				b.Fatal(err)
			}
			kept := history.New(history.Config{Keep: 10 * time.Minute, MaxBytes: 16 << 20})
			source := newReplay(b, lookup)
			var p *Pipeline
			if name == "sockets" || name == "recorded" {
				source.observes = capture.Observes{DeliveredUDP: true, DeliveredTCP: true, ReadUDP: true, ReadTCP: true}
			}
			if name == "recorded" {
				source.record = fromCache()
				source.records = func(line []byte) {
					r, err := trace.Decode(line)
					if err != nil {
						b.Fatal(err)
					}
					p.assembler.Add(r)
				}
			}
			traces, bytes := 0, 0
			p = New(Config{
				Source: source, Receiver: make(silent), Ports: []uint16{53}, Timeout: 5 * time.Second,
				Trace: func(_ trace.Record, line []byte) {
					traces++
					bytes += len(line)
					kept.Add(time.Now(), history.Lookup{Line: line})
					out.Write(line)
				},
				Flush: out.Flush,
				Last:  func() {},
			})
			source.clock.Sync()
			b.ReportAllocs()
			done := uint64(0)
			for b.Loop() {
				// One lookup: a round is worth many.
				if done == 0 {
					if err := p.round(); err != nil {
						b.Fatal(err)
					}
					done = perSecond * uint64(pollBusy) / uint64(time.Second)
				}
				done--
			}
			b.ReportMetric(float64(bytes)/float64(max(traces, 1)), "B/trace")
			if err := out.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
