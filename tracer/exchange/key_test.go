package exchange

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Addresses of a second server, and of a backend of a Service.
var (
	second  = netip.MustParseAddrPort("192.168.49.3:53")
	backend = netip.MustParseAddrPort("10.244.0.9:53")
)

// outcomes lists what was passed on, by server.
func (f *feed) outcomes() []string {
	var got []string
	for _, ex := range f.got {
		got = append(got, netip.AddrPortFrom(ex.ServerIP, ex.ServerPort).String()+" "+ex.Outcome)
	}
	slices.Sort(got)
	return got
}

// One socket asks two servers with one ID, as musl and dnsmasq --all-servers do: two
// exchanges with one flow, at two times.
func TestTwoServersOneID(t *testing.T) {
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	for name, by := range map[string]func(*capture.Packet){"process known": sentBy(42, "dnsmasq", 0), "not known": sentBy(0, "", 0)} {
		for _, sameBuffer := range []bool{true, false} {
			f := newFeed(t)
			for _, to := range []netip.AddrPort{server, second} {
				f.packet(capture.TX, podNS, 2, pod, to, q, by)
				f.packet(capture.RX, nodeNS, 5, pod, to, q)
				f.packet(capture.TX, nodeNS, 6, pod, to, q)
				if !sameBuffer {
					f.skb++
				}
			}
			f.skb = 100
			for _, from := range []netip.AddrPort{second, server} {
				f.packet(capture.RX, nodeNS, 6, from, pod, r)
				f.packet(capture.TX, nodeNS, 5, from, pod, r)
				f.packet(capture.RX, podNS, 2, from, pod, r)
				f.skb++
				f.now += int64(10 * time.Millisecond)
			}
			f.after(time.Minute)
			want := []string{server.String() + " answered", second.String() + " answered"}
			if got := f.outcomes(); !slices.Equal(got, want) {
				t.Fatalf("%s, same buffer %t: %v", name, sameBuffer, got)
			}
			a, b := f.got[0], f.got[1]
			if a.Flow != b.Flow || a.TraceID != b.TraceID || a.Time.Equal(b.Time) || a.Path.Len() != 6 || b.Path.Len() != 6 || a.NAT != nil || b.NAT != nil {
				t.Errorf("%s, same buffer %t: %d and %d sightings, %+v, %+v", name, sameBuffer, a.Path.Len(), b.Path.Len(), a.NAT, b.NAT)
			}
		}
	}
}

// A proxy takes a query and asks on with the address, port and ID of its client: to
// another server, and to the same; also where packets wait for a processor on their way.
func TestTransparentProxyIsAnExchangeOfItsOwn(t *testing.T) {
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	for name, on := range map[string]netip.AddrPort{"to another server": server, "to the same server": service} {
		for i := range 4 {
			sameBuffer := i%2 == 0
			f := newFeed(t)
			f.pause = time.Duration(i/2) * 20 * time.Millisecond
			next := func() {
				if !sameBuffer {
					f.skb++
				}
			}
			f.packet(capture.TX, podNS, 2, pod, service, q, sentBy(42, "dig", 0))
			f.packet(capture.RX, nodeNS, 5, pod, service, q)
			next()
			f.packet(capture.TX, nodeNS, 6, pod, on, q, sentBy(99, "proxy", 0))
			f.packet(capture.RX, serverNS, 2, pod, on, q)
			next()
			f.packet(capture.TX, serverNS, 2, on, pod, r, sentBy(53, "coredns", 0))
			f.packet(capture.RX, nodeNS, 6, on, pod, r)
			next()
			f.packet(capture.TX, nodeNS, 5, service, pod, r, sentBy(99, "proxy", 0))
			f.packet(capture.RX, podNS, 2, service, pod, r)
			f.after(time.Minute)
			if len(f.got) != 2 {
				t.Fatalf("%s, same buffer %t, paused %s: %d exchanges", name, sameBuffer, f.pause, len(f.got))
			}
			slices.SortFunc(f.got, func(a, b *trace.Exchange) int { return a.Time.Compare(b.Time) })
			for i, want := range []struct {
				client, server string
				place          uint32
			}{{"dig", "proxy", nodeNS}, {"proxy", "coredns", serverNS}} {
				ex := f.got[i]
				place, _ := ex.ServerPlace()
				if ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 4 || ex.NAT != nil || ex.Client.Process != want.client ||
					ex.Server == nil || ex.Server.Process != want.server || place.NetNS != want.place {
					t.Errorf("%s, same buffer %t, paused %s, exchange %d: %s, %d sightings, NAT %+v, %+v → %+v", name, sameBuffer, f.pause, i, ex.Outcome, ex.Path.Len(), ex.NAT, ex.Client, ex.Server)
				}
			}
		}
	}
}

// What is known of the buffers of a transparent proxy's packets is forgotten on a busy node:
// where a query was seen tells whose response comes there.
func TestTransparentProxyWithoutBuffers(t *testing.T) {
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	proxy := func(p *capture.Packet) { p.PID, p.Comm = 99, "proxy" }
	f := newFeed(t)
	f.table.cfg.Observes = everything
	packet := func(kind capture.Kind, netns, ifindex uint32, src, dst netip.AddrPort, b []byte, change ...func(*capture.Packet)) {
		f.table.buffers = buffers{}
		f.packet(kind, netns, ifindex, src, dst, b, change...)
	}
	packet(tx, podNS, 2, pod, service, q, sentBy(42, "dig", 0))
	packet(rx, nodeNS, 5, pod, service, q)
	packet(delivered, nodeNS, 5, pod, service, q)
	packet(read, nodeNS, 0, pod, service, q, proxy)
	f.skb++
	packet(tx, nodeNS, 6, pod, service, q, sentBy(99, "proxy", 0))
	packet(rx, serverNS, 2, pod, service, q)
	packet(delivered, serverNS, 2, pod, service, q)
	packet(read, serverNS, 0, pod, service, q, func(p *capture.Packet) { p.PID, p.Comm = 53, "coredns" })
	f.skb++
	packet(tx, serverNS, 2, service, pod, r, sentBy(53, "coredns", 0))
	packet(rx, nodeNS, 6, service, pod, r)
	packet(delivered, nodeNS, 6, service, pod, r)
	packet(read, nodeNS, 0, service, pod, r, proxy)
	f.skb++
	packet(tx, nodeNS, 5, service, pod, r, sentBy(99, "proxy", 0))
	packet(rx, podNS, 2, service, pod, r)
	packet(delivered, podNS, 2, service, pod, r)
	packet(read, podNS, 0, service, pod, r, func(p *capture.Packet) { p.PID, p.Comm = 42, "dig" })
	f.after(time.Minute)
	if len(f.got) != 2 {
		t.Fatalf("%d exchanges", len(f.got))
	}
	for _, ex := range f.got {
		if m := ex.Milestones; ex.Outcome != trace.OutcomeAnswered || ex.Path.Len() != 8 || !m.Query.Read.Seen() || !m.Response.Read.Seen() {
			t.Errorf("%v: %s, %d sightings, %+v", ex.Client, ex.Outcome, ex.Path.Len(), m)
		}
	}
}

// What the proxy reads late is what reached its socket: the client's query, and the response to
// its own, although both exchanges have the same addresses.
func TestTransparentProxyReadsLate(t *testing.T) {
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	const pid = 99
	reader := func(p *capture.Packet) { p.PID, p.Comm = pid, "proxy" }
	f := newFeed(t)
	f.table.cfg.Observes = everything
	f.packet(tx, podNS, 2, pod, service, q, sentBy(42, "dig", 0))
	f.packet(rx, nodeNS, 5, pod, service, q)
	f.packet(delivered, nodeNS, 5, pod, service, q)
	f.skb++
	f.packet(tx, nodeNS, 6, pod, service, q, sentBy(pid, "proxy", 0))
	f.skb++
	f.packet(read, nodeNS, 0, pod, service, q, reader)
	f.packet(rx, nodeNS, 6, service, pod, r)
	f.packet(delivered, nodeNS, 6, service, pod, r)
	f.now += int64(50 * time.Millisecond)
	f.packet(read, nodeNS, 0, service, pod, r, reader)
	f.packet(tx, nodeNS, 5, service, pod, r, sentBy(pid, "proxy", 0))
	f.packet(rx, podNS, 2, service, pod, r)
	f.after(time.Minute)
	for _, ex := range f.got {
		if !ex.Milestones.Query.Left.Seen() || !ex.Milestones.Response.Arrived.Seen() {
			t.Errorf("%+v", ex.Milestones)
		}
		proxied := ex.Client.PID == pid
		if ex.Milestones.Query.Read.Seen() == proxied || ex.Milestones.Response.Read.Seen() != proxied {
			t.Errorf("by the proxy %t: %+v", proxied, ex.Milestones)
		}
	}
	if len(f.got) != 2 {
		t.Errorf("%d exchanges", len(f.got))
	}
}

// Two clients in namespaces that are not observed ask the same with the same ID, and the kernel
// uses the buffer of the first one's query again for that of the second.
func TestBufferOfAQueryThatArrivedIsAnothers(t *testing.T) {
	for _, atSocket := range []bool{true, false} {
		f := newFeed(t)
		q := query(t, "example.com.", 7)
		for i, client := range []netip.AddrPort{pod, netip.AddrPortFrom(netip.MustParseAddr("10.244.0.99"), pod.Port())} {
			f.packet(rx, nodeNS, uint32(5+i), client, server, q)
			f.packet(tx, nodeNS, 4, client, server, q)
			f.packet(rx, serverNS, 2, client, server, q)
			if atSocket {
				f.packet(delivered, serverNS, 0, client, server, q)
			}
		}
		f.after(time.Minute)
		if len(f.got) != 2 || f.got[0].NAT != nil || f.got[1].NAT != nil {
			t.Errorf("seen at the socket %t: %d exchanges", atSocket, len(f.got))
		}
	}
}

// A bond: the packet that a socket sends passes two devices of its namespace.
func TestStackedDevicesAreOneTransmission(t *testing.T) {
	f := newFeed(t)
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	f.packet(capture.TX, nodeNS, 2, node, server, q, sentBy(42, "dig", 0))
	f.packet(capture.TX, nodeNS, 3, node, server, q, sentBy(42, "dig", 0))
	f.skb++
	f.packet(capture.RX, nodeNS, 4, server, node, r) // the other slave
	f.packet(capture.RX, nodeNS, 2, server, node, r)
	f.after(time.Second)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.Transmissions != 1 || ex.Milestones.Query.Arrived != trace.NotObservable || ex.Milestones.Response.Left != trace.NotObservable {
		t.Errorf("%s, %d transmissions, %+v", ex.Outcome, ex.Transmissions, ex.Milestones)
	}
}

// A macvlan or ipvlan device: its packets pass the lower device in the namespace of the
// node, with the socket that sent them.
func TestLowerDeviceInAnotherNamespace(t *testing.T) {
	f := newFeed(t)
	f.steps(query(t, "example.com.", 7), response(t, "example.com.", 7, 0), []step{
		{tx, podNS, 2, 1, false, pod, second, sentBy(42, "dig", 7)}, {tx, nodeNS, 3, 1, false, pod, second, sentBy(42, "dig", 7)},
		{rx, nodeNS, 3, 2, true, second, pod, nil}, {rx, podNS, 2, 2, true, second, pod, nil},
	})
	f.after(time.Second)
	if ex := f.one(); milestones(ex) != "0?? ?3?" || ex.Outcome != trace.OutcomeAnswered || ex.Transmissions != 1 {
		t.Errorf("%s, %s, %d transmissions", milestones(ex), ex.Outcome, ex.Transmissions)
	}
}

// Programs translate a packet at a time, and no connection tracking tells: as Cilium
// does. The same buffer proves it; without that, client, ID and question do.
func TestTranslationByPrograms(t *testing.T) {
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	for _, tc := range []struct {
		name       string
		sameBuffer bool
		source     string
	}{{"same buffer", true, trace.NATBuffer}, {"another buffer", false, trace.NATMatched}} {
		f := newFeed(t)
		next := func() {
			if !tc.sameBuffer {
				f.skb++
			}
		}
		f.packet(capture.TX, podNS, 2, pod, service, q, sentBy(42, "dig", 0))
		f.packet(capture.RX, nodeNS, 5, pod, service, q)
		next()
		f.packet(capture.Delivered, serverNS, 0, pod, backend, q)
		f.skb = 50
		f.packet(capture.TX, serverNS, 2, backend, pod, r, sentBy(53, "coredns", 0))
		f.packet(capture.RX, nodeNS, 6, backend, pod, r)
		next()
		f.packet(capture.Delivered, podNS, 0, service, pod, r)
		f.after(time.Second)
		ex := f.one()
		if ex.Outcome != trace.OutcomeAnswered || ex.NAT == nil || ex.NAT.Source != tc.source || ex.NAT.ServerIP != backend.Addr() || ex.Path.Len() != 6 || len(ex.Rejected) != 0 {
			t.Errorf("%s: %s, NAT %+v, %d sightings, rejected %+v", tc.name, ex.Outcome, ex.NAT, ex.Path.Len(), ex.Rejected)
		}
	}
}

// A query that a socket sends again is of its exchange; of another process it is not.
func TestSentAgain(t *testing.T) {
	for pid, want := range map[int]int{42: 1, 43: 2} {
		f := newFeed(t)
		q := query(t, "example.com.", 7)
		f.packet(capture.TX, nodeNS, 2, node, server, q, sentBy(42, "dig", 0))
		f.skb++
		f.now += int64(time.Second)
		f.packet(capture.TX, nodeNS, 2, node, server, q, sentBy(pid, "x", 0))
		f.after(time.Minute)
		if len(f.got) != want || want == 1 && f.got[0].Transmissions != 2 {
			t.Errorf("process %d: %d exchanges", pid, len(f.got))
		}
	}
}

// Two Services are asked at once, and programs translate both: which of them a backend
// answered shows at the client.
func TestTwoServicesTranslatedByPrograms(t *testing.T) {
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	f := newFeed(t)
	f.table.cfg.Observes = everything
	for _, to := range []netip.AddrPort{service, second} {
		f.packet(tx, podNS, 2, pod, to, q, sentBy(42, "musl", 0))
		f.packet(rx, nodeNS, 5, pod, to, q)
		f.skb++
	}
	for _, from := range []netip.AddrPort{service, second} {
		f.packet(tx, serverNS, 2, backend, pod, r, sentBy(53, "coredns", 0))
		f.packet(rx, nodeNS, 6, backend, pod, r)
		f.packet(delivered, podNS, 0, from, pod, r)
		f.skb++
	}
	f.after(time.Minute)
	for _, ex := range f.got {
		if ex.Outcome != trace.OutcomeAnswered || len(ex.Rejected) != 0 {
			t.Errorf("%s: %s, %+v", ex.ServerIP, ex.Outcome, ex.Rejected)
		}
	}
	if len(f.got) != 2 {
		t.Errorf("%d exchanges", len(f.got))
	}
}

// What a process reads when its exchange is over begins no other.
func TestReadLate(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 7)
	f.throughService(q, response(t, "example.com.", 7, 0))
	f.after(time.Second)
	f.packet(read, serverNS, 0, pod, server, q)
	f.packet(read, podNS, 0, service, pod, response(t, "example.com.", 7, 0))
	f.after(time.Minute)
	f.one()
	if s := f.table.Stats(); s.Open != 0 || s.Orphans != 2 {
		t.Errorf("%+v", s)
	}
}

// Of a message that may have been read by a read that is not known, nothing follows from not
// having seen it.
func TestUnsureRead(t *testing.T) {
	f := newFeed(t)
	q := query(t, "example.com.", 7)
	f.packet(tx, podNS, 2, pod, server, q)
	f.packet(delivered, serverNS, 0, pod, server, q)
	f.packet(read, serverNS, 0, pod, server, q, func(p *capture.Packet) { p.Unsure = true })
	f.after(time.Minute)
	if ex := f.one(); ex.Milestones.Query.Read != trace.NotObservable || ex.Path.Len() != 2 {
		t.Errorf("%+v, %d sightings", ex.Milestones, ex.Path.Len())
	}
}

// The process that reads a message is its receiver.
func TestReaders(t *testing.T) {
	f := newFeed(t)
	q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
	f.packet(tx, podNS, 2, pod, server, q)
	f.packet(delivered, serverNS, 0, pod, server, q)
	f.packet(read, serverNS, 0, pod, server, q, sentBy(53, "named", 0))
	f.skb++
	f.packet(tx, serverNS, 2, server, pod, r)
	f.packet(delivered, podNS, 0, server, pod, r)
	f.packet(read, podNS, 0, server, pod, r, sentBy(42, "dig", 0))
	f.after(time.Minute)
	ex := f.one()
	if ex.Server == nil || ex.Server.Process != "named" || ex.Client == nil || ex.Client.Process != "dig" || milestones(ex) != "012 345" {
		t.Errorf("%+v → %+v, %s", ex.Client, ex.Server, milestones(ex))
	}
}
