package capture

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// half of the lookups: a wrong hash is wrong for every second of them.
var half = 0.5

// sampleEcho is a source that draws lots and a server that it watches, which returns
// what it gets with the bit of a response set.
func sampleEcho(t *testing.T, ip net.IP, rate *float64) (*Source, *net.UDPConn) {
	t.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	source, err := openDevices(Config{Ports: []uint16{server.LocalAddr().(*net.UDPAddr).AddrPort().Port()}, Sample: rate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	client, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x80
			if _, err := server.WriteToUDPAddrPort(buf[:n], from); err != nil {
				return
			}
		}
	}()
	return source, client
}

// lookup sends a message and waits until it came back.
func lookup(t *testing.T, client *net.UDPConn, message []byte) {
	t.Helper()
	if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
}

// wireName makes a name of that many bytes, 1 to 255, the root's zero byte included,
// with letters of both cases and any other byte.
func wireName(length int) []byte {
	var name []byte
	for left := length - 1; left > 0; {
		label := min(63, left-1)
		if left-1-label == 1 { // what is left would be a length alone
			label--
		}
		name = append(name, byte(label))
		for range label {
			name = append(name, byte(rand.IntN(256)))
		}
		left -= 1 + label
	}
	return append(name, 0)
}

// sampleQuery is a query with a name of that length, and what names its flow.
type sampleQuery struct {
	id, qtype, qclass uint16
	name              []byte
}

func newSampleQuery(id uint16, length int) sampleQuery {
	return sampleQuery{id, uint16(rand.IntN(1 << 16)), uint16(rand.IntN(1 << 16)), wireName(length)}
}

// message has one question, and the records of additional, as many as there are.
func (q sampleQuery) message(additional ...[]byte) []byte {
	m := binary.BigEndian.AppendUint16(nil, q.id)
	m = append(m, 1, 0, 0, 1, 0, 0, 0, 0, 0, byte(len(additional)))
	m = append(m, q.name...)
	m = binary.BigEndian.AppendUint16(m, q.qtype)
	m = binary.BigEndian.AppendUint16(m, q.qclass)
	for _, rr := range additional {
		m = append(m, rr...)
	}
	return m
}

func (q sampleQuery) drawn(client *net.UDPConn, rate float64) bool {
	flow := trace.NewFlow(trace.TransportUDP, client.LocalAddr().(*net.UDPAddr).AddrPort(), q.id, q.qtype, q.qclass, q.name)
	return trace.Sampled(trace.NewTraceID(time.Now(), flow), rate)
}

// seenByID counts the packets with each DNS ID.
func seenByID(t *testing.T, source *Source) map[uint16]int {
	t.Helper()
	seen := map[uint16]int{}
	for _, p := range poll(t, source) {
		seen[binary.BigEndian.Uint16(p.Payload)]++
	}
	return seen
}

// The programs report the lookups that the plugin records at the same rate: each of
// their packets, none of the others, and those are counted. Names of every length
// that fills blocks of the hash to every byte, and of any bytes.
func TestSampleIsThePlugins(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		source, client := sampleEcho(t, net.ParseIP(ip), &half)
		want, out := map[uint16]int{}, uint64(0)
		for length := 1; length <= 255; length++ {
			if length == 2 { // no name has two bytes
				continue
			}
			q := newSampleQuery(uint16(1000+length), length)
			lookup(t, client, q.message())
			if q.drawn(client, half) {
				want[q.id] = 4 // query and response, TX and RX on loopback
			} else {
				out += 4
			}
		}
		seen := seenByID(t, source)
		for id := uint16(1001); id <= 1255; id++ {
			if seen[id] != want[id] {
				t.Errorf("%s: %d packets of a lookup with a name of %d bytes, expected %d", ip, seen[id], id-1000, want[id])
			}
		}
		if c := source.Counters(); c.SampledOut != out || c.Lost+c.Shed != 0 || c.Emitted != 4*254-out {
			t.Errorf("%s: %+v, expected %d sampled out", ip, c, out)
		}
	}
}

// A port and an ID that another question used before draw anew.
func TestSampleOfAPortUsedAgain(t *testing.T) {
	source, client := sampleEcho(t, net.IPv4(127, 0, 0, 1), &half)
	want := 0
	for range 100 {
		q := newSampleQuery(7, 20)
		lookup(t, client, q.message())
		if q.drawn(client, half) {
			want += 4
		}
	}
	if seen := seenByID(t, source); seen[7] != want || want == 0 || want == 400 {
		t.Errorf("%d packets, expected %d of 400", seen[7], want)
	}
}

// optRecord is an OPT record with options of a code and data each (RFC 6891, section 6.1).
func optRecord(options ...[]byte) []byte {
	length := 0
	for _, o := range options {
		length += len(o)
	}
	rr := []byte{0, 0, 41, 0x10, 0, 0, 0, 0, 0}
	rr = binary.BigEndian.AppendUint16(rr, uint16(length))
	for _, o := range options {
		rr = append(rr, o...)
	}
	return rr
}

func option(code uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// A query that says of which trace it is has the lot of that trace, and so has its
// response, which says nothing. What the plugin ignores is ignored.
func TestSampleOfStampedQueries(t *testing.T) {
	in, out := trace.TraceID{1, 12: 0, 15: 1}, trace.TraceID{1, 12: 0xff, 15: 1}
	stamp := func(id trace.TraceID) []byte {
		return option(trace.DefaultOptionCode, trace.Traceparent{TraceID: id, SpanID: trace.SpanID{1}}.Append(nil))
	}
	cookie := option(10, []byte("12345678"))
	anotherVersion := stamp(in)
	anotherVersion[4] = 1
	always, never := true, false
	tests := []struct {
		name   string
		record []byte
		drawn  *bool // nil: as its flow is
	}{
		{"in", optRecord(stamp(in)), &always},
		{"out", optRecord(stamp(out)), &never},
		{"behind another", optRecord(cookie, stamp(out)), &never},
		{"without flags", optRecord(option(trace.DefaultOptionCode, stamp(in)[4:30])), &always},
		{"without span", optRecord(option(trace.DefaultOptionCode, stamp(out)[4:22])), &never},
		{"too short", optRecord(option(trace.DefaultOptionCode, stamp(in)[4:20])), nil},
		{"another version", optRecord(anotherVersion), nil},
		{"two", optRecord(stamp(in), stamp(in)), nil},
		{"of no trace", optRecord(stamp(trace.TraceID{})), nil},
		{"longer than its record", append(optRecord(stamp(in)[:20]), stamp(in)[20:]...), nil},
		{"no options", optRecord(), nil},
		{"another record", append([]byte{0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 31}, stamp(in)...), nil},
		{"a record longer than all", optRecord(stamp(in))[:20], nil},
	}
	source, client := sampleEcho(t, net.IPv4(127, 0, 0, 1), &half)
	// As many of each as it takes for both lots to be among the flows'.
	const each = 20
	var queries []sampleQuery
	for i, test := range tests {
		for n := range each {
			q := newSampleQuery(uint16(i*each+n), 30)
			queries = append(queries, q)
			lookup(t, client, q.message(test.record))
		}
	}
	seen := seenByID(t, source)
	for i, q := range queries {
		test := tests[i/each]
		drawn := q.drawn(client, half)
		if test.drawn != nil {
			drawn = *test.drawn
		}
		if want := map[bool]int{true: 4}[drawn]; seen[q.id] != want {
			t.Errorf("%s: %d packets, expected %d", test.name, seen[q.id], want)
		}
	}
}

// What has no question to draw by is reported: it is rare, and may be what is wrong.
func TestSampleOfOddMessages(t *testing.T) {
	none := 0.0
	source, client := sampleEcho(t, net.IPv4(127, 0, 0, 1), &none)
	head := func(id byte, questions byte) []byte { return []byte{0, id, 1, 0, 0, questions, 0, 0, 0, 0, 0, 0} }
	messages := [][]byte{
		head(0, 0), // no question
		append(head(1, 2), 1, 'a', 0, 0, 1, 0, 1),  // two
		append(head(2, 1), 1, 'a'),                 // a name that does not end
		append(head(3, 1), 1, 'a', 0, 0, 1, 0),     // a class cut short
		append(head(4, 1), 0xc0, 12, 0, 1, 0, 1),   // a pointer
		head(5, 1),                                 // nothing
		append(head(6, 1), wireName(255)[:254]...), // a name without its end
		append(append(head(7, 1), wireName(254)[:253]...), // a name of 256 bytes
			1, 'a', 0, 0, 1, 0, 1),
	}
	for _, m := range messages {
		lookup(t, client, m)
	}
	q := newSampleQuery(100, 40)
	lookup(t, client, q.message())
	seen := seenByID(t, source)
	for id := range messages {
		if seen[uint16(id)] != 4 {
			t.Errorf("message %d: %d packets, expected 4", id, seen[uint16(id)])
		}
	}
	if seen[q.id] != 0 {
		t.Errorf("%d packets of a lookup at rate 0", seen[q.id])
	}
}

// Behind a translation of its address a client is who the server sees.
func TestSampleOfATranslatedClient(t *testing.T) {
	const lookups = 40
	var source *Source
	want := map[uint16]bool{}
	lacks := false
	inNewNamespace(t, func() error {
		server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer server.Close()
		if lacks = !addRules("table ip t { chain p { type nat hook postrouting priority 100; udp dport %d snat to 127.0.0.77; }; }",
			server.LocalAddr().(*net.UDPAddr).Port); lacks {
			return nil
		}
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		if source, err = openDevices(Config{Ports: []uint16{port}, NetNS: []string{fmt.Sprint(inode)}, Sample: &half}); err != nil {
			return err
		}
		client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer client.Close()
		for id := range uint16(lookups) {
			q := newSampleQuery(id, 25)
			if _, err := client.Write(q.message()); err != nil {
				return err
			}
			_, from, err := server.ReadFromUDPAddrPort(make([]byte, 512))
			if err != nil {
				return err
			}
			if !from.Addr().Is4() || from.Addr().String() != "127.0.0.77" {
				return fmt.Errorf("the server sees %v", from)
			}
			flow := trace.NewFlow(trace.TransportUDP, from, q.id, q.qtype, q.qclass, q.name)
			want[id] = trace.Sampled(trace.NewTraceID(time.Now(), flow), half)
		}
		return nil
	})
	if lacks {
		return
	}
	defer source.Close()
	seen := seenByID(t, source)
	for id, in := range want {
		if w := map[bool]int{true: 2}[in]; seen[id] != w {
			t.Errorf("%d packets of lookup %d, expected %d", seen[id], id, w)
		}
	}
}
