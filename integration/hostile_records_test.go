package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// attackersWords stand in every record that an attacker writes.
const attackersWords = "in the words of an attacker"

// forgedRecord is a record of a lookup of client-a that says, as CoreDNS would, that it
// just failed.
func (h *hostileRig) forgedRecord(name string, port, id uint16) *trace.Query {
	h.rig.t.Helper()
	client := netip.AddrPortFrom(h.Host("client-a").V4, port)
	wire := make([]byte, 256)
	n, err := dns.PackDomainName(name, wire, 0, nil, false)
	if err != nil {
		h.rig.t.Fatal(err)
	}
	took := 40 * time.Millisecond
	at := time.Now().Add(-took)
	flow := trace.NewFlow(trace.TransportUDP, client, id, dns.TypeA, dns.ClassINET, wire[:n])
	q := &trace.Query{
		Header: trace.Header{Time: at, Flow: flow, TraceID: trace.NewTraceID(at, flow)},
		DNS: trace.DNS{ClientIP: client.Addr(), ClientPort: port, QName: name, QType: "A", QClass: "IN", Protocol: "udp", ID: id,
			RequestSize: 40, BufSize: 512, RCode: "SERVFAIL", Duration: trace.SecondsPtr(took)},
		ServerIP: h.Host(lab.CoreDNS).V4, ServerPort: 53, Zone: ".", Cache: trace.CacheMiss, AnsweredBy: "forward",
		Outcome: trace.OutcomeError, Error: attackersWords,
		Hops: []trace.Hop{{Plugin: "forward", Duration: trace.SecondsPtr(took)}},
		Upstreams: []trace.Attempt{{Attempt: 1, Address: netip.AddrPortFrom(h.Host(lab.Upstream).V4, 53).String(), Duration: trace.SecondsPtr(took),
			Outcome: trace.OutcomeTimeout, Error: attackersWords, Plugin: "forward"}},
	}
	q.SpanID = trace.NewSpanID(q.TraceID, trace.SpanID{}, trace.RoleServer, 0)
	return q
}

// stranger is a process that is no server, and sends records.
type stranger struct {
	every time.Duration // between two; 0: as fast as they go
	last  time.Duration // for how long, again and again; 0: each once
}

// report sends datagrams of records to the tracer, and returns how many it could.
func (s stranger) report(h *hostileRig, datagrams ...[]byte) (sent float64) {
	h.rig.t.Helper()
	path := filepath.Join(h.Dir(), fmt.Sprintf("datagrams%d", rand.Uint64()))
	if err := os.WriteFile(path, bytes.Join(datagrams, []byte{0}), 0o600); err != nil {
		h.rig.t.Fatal(err)
	}
	out, err := h.Run(context.Background(), lab.Spec{Name: "stranger", Path: os.Args[0], Args: []string{"-test.run", "^TestStranger$", "-test.v"},
		Env: []string{strangerSocket + "=" + h.RecordSocket(), strangerSends + "=" + path, strangerEvery + "=" + s.every.String(), strangerLast + "=" + s.last.String()}})
	if err != nil {
		h.rig.t.Fatal(err)
	}
	_, count, found := strings.Cut(out, strangerSent)
	if _, err := fmt.Sscan(count, &sent); !found || err != nil {
		h.rig.t.Fatalf("%v: %s", err, out)
	}
	return sent
}

// What tells a stranger what to do, and what it tells.
const (
	strangerSocket = "DNSTRACE_STRANGER_SOCKET"
	strangerSends  = "DNSTRACE_STRANGER_SENDS"
	strangerEvery  = "DNSTRACE_STRANGER_EVERY"
	strangerLast   = "DNSTRACE_STRANGER_LAST"
	strangerSent   = "the stranger has sent "
)

// TestStranger is what a stranger runs; called by nobody, it does nothing.
func TestStranger(t *testing.T) {
	socket := os.Getenv(strangerSocket)
	if socket == "" {
		return
	}
	all, err := os.ReadFile(os.Getenv(strangerSends))
	if err != nil {
		t.Fatal(err)
	}
	datagrams := bytes.Split(all, []byte{0})
	every, err := time.ParseDuration(os.Getenv(strangerEvery))
	if err != nil {
		t.Fatal(err)
	}
	last, err := time.ParseDuration(os.Getenv(strangerLast))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := 0
	for i, end := 0, time.Now().Add(last); i < len(datagrams) || time.Now().Before(end); i++ {
		if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(datagrams[i%len(datagrams)]); err == nil {
			sent++
		}
		time.Sleep(every)
	}
	fmt.Println(strangerSent, sent)
}

// lines are datagrams of one record each.
func lines(records ...trace.Record) (datagrams [][]byte) {
	for _, r := range records {
		datagrams = append(datagrams, append(r.AppendJSON(nil), '\n'))
	}
	return datagrams
}

// reportSelf sends records from the process that runs the lab's upstreams and its clients.
func (h *hostileRig) reportSelf(records ...trace.Record) {
	h.rig.t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: h.RecordSocket(), Net: "unixgram"})
	if err != nil {
		h.rig.t.Fatal(err)
	}
	defer conn.Close()
	for _, d := range lines(records...) {
		if _, err := conn.Write(d); err != nil {
			h.rig.t.Fatal(err)
		}
	}
}

// refused waits until so many records were refused for a reason.
func (h *hostileRig) refused(reason string, least float64) {
	h.rig.t.Helper()
	series := fmt.Sprintf("dnstrace_plugin_records_refused_total{reason=%q}", reason)
	got := 0.0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got = metric(h.rig.t, scrape(h.rig.t, h.metrics), series); got >= least {
			return
		}
	}
	h.rig.t.Errorf("%v records were refused for %s, expected %v", got, reason, least)
}

// nothingOf wants no word of an attacker in anything that the tracer wrote.
func (h *hostileRig) nothingOf(t *testing.T) {
	t.Helper()
	for _, rec := range h.records() {
		if line := rec.AppendJSON(nil); bytes.Contains(line, []byte(attackersWords)) {
			t.Errorf("an attacker is quoted: %s", line)
		}
	}
}

// impossibleRecords are some that no CoreDNS writes, by the reason for which they are
// refused.
func (h *hostileRig) impossibleRecords(name string) map[string][]trace.Record {
	with := func(change func(*trace.Query)) trace.Record {
		q := h.forgedRecord(name, 40001, 7)
		change(q)
		return q
	}
	seconds := func(s float64) *trace.Seconds { return trace.SecondsPtr(time.Duration(s * float64(time.Second))) }
	long := strings.Repeat("x", 2000)
	return map[string][]trace.Record{
		"time": {
			with(func(q *trace.Query) { q.Time = time.Now().Add(time.Hour) }),
			with(func(q *trace.Query) { q.Time = time.Now().Add(6 * time.Second) }),
			with(func(q *trace.Query) { q.Time = time.Now().Add(-time.Hour) }),
			with(func(q *trace.Query) { q.Time = time.Now().AddDate(2000, 0, 0) }),
			with(func(q *trace.Query) { q.Time = time.Now().Add(-8 * time.Second) }),
		},
		"duration": {
			with(func(q *trace.Query) { q.DNS.Duration = seconds(1e6) }),
			with(func(q *trace.Query) { q.DNS.Duration = seconds(-1) }),
			with(func(q *trace.Query) { q.DNS.Duration = seconds(50) }),
			with(func(q *trace.Query) { q.Hops[0].Start = trace.Seconds(time.Hour) }),
			with(func(q *trace.Query) { q.Hops[0].Start = -1 }),
			with(func(q *trace.Query) { q.Hops[0].Duration = seconds(9e9) }),
			with(func(q *trace.Query) { q.Upstreams[0].Start, q.Upstreams[0].Duration = trace.Seconds(time.Hour), nil }),
			with(func(q *trace.Query) { q.Upstreams[0].Duration = seconds(-0.001) }),
		},
		"field": {
			with(func(q *trace.Query) { q.QName = strings.Repeat("label.", 43) }),
			with(func(q *trace.Query) { q.QName = "" }),
			with(func(q *trace.Query) { q.Zone = long }),
			with(func(q *trace.Query) { q.Error = long }),
			with(func(q *trace.Query) { q.Upstreams[0].Address = long }),
			with(func(q *trace.Query) { q.Upstreams[0].QName = long }),
			with(func(q *trace.Query) { q.QType = long }),
			with(func(q *trace.Query) { q.RequestSize = -1 }),
			with(func(q *trace.Query) { q.Hops = make([]trace.Hop, 400) }),
			with(func(q *trace.Query) { q.Upstreams = make([]trace.Attempt, 400) }),
			with(func(q *trace.Query) { later := 5; q.Hops[0].Parent = &later }),
		},
	}
}

// A record that cannot be is refused and counted, and moves no clock: lookups are joined
// with CoreDNS's records as before.
func TestImpossibleRecords(t *testing.T) {
	h := newHostileRig(t)
	impossible := h.impossibleRecords("impossible.test.")
	for _, reason := range []string{"time", "duration", "field"} { // a time goes by meanwhile
		records := impossible[reason]
		stranger{}.report(h, lines(records...)...)
		h.refused(reason, float64(len(records)))
	}
	line := string(h.forgedRecord("impossible.test.", 40002, 8).AppendJSON(nil))
	for _, number := range []string{"NaN", "1e999", "-1e308", `"1"`} {
		stranger{}.report(h, []byte(strings.Replace(line, `"duration_seconds":0.04`, `"duration_seconds":`+number, 1)))
	}
	h.refused("malformed", 4)
	stranger{}.report(h, []byte(strings.Replace(line, `"client_ip":"`, `"client_ip":"fe80::1%`+strings.Repeat("z", 2000), 1)))
	h.refused("field", 12)
	h.unharmed(t)
	h.nothingOf(t)
	if err := h.tracer.Stop(); err != nil {
		t.Error(err)
	}
	wantAll(t, h.tracer.Stderr(), "5 plugin records refused: time", "8 plugin records refused: duration", "12 plugin records refused: field", "4 plugin records refused: malformed")
}

// A record that another process than CoreDNS wrote makes nothing: of a client that sent
// nothing, of one whose lookup goes well, before and after CoreDNS's own, and of work in
// the background.
func TestForgedRecord(t *testing.T) {
	h := newHostileRig(t)
	stranger{}.report(h, lines(h.forgedRecord("nothing.test.", 40003, 9))...)

	const port, id = 45100, 4242
	before := h.forgedRecord("victim.test.", port, id)
	before.Time = time.Now()
	before.Hops, before.Upstreams[0].Duration, before.DNS.Duration = nil, nil, nil
	stranger{}.report(h, lines(before)...)
	h.answered(lab.Query{Name: "victim.test.", LocalPort: port, ID: id})
	after := h.forgedRecord("victim.test.", port, id)
	after.Time = before.Time.Add(time.Millisecond)
	after.TraceID[0] ^= 0xff

	refresh := &trace.Refresh{Header: before.Header, DNS: before.DNS, Cause: "prefetch", Upstreams: before.Upstreams}
	refresh.Time = time.Now()
	stranger{}.report(h, lines(after, refresh)...)

	tr := h.trace("victim.test.")
	if tr.Query == nil || tr.Query.Unverified || tr.Query.Error != "" || tr.RCode != "NOERROR" || len(tr.Diagnosis) != 0 || len(tr.Gaps) != 0 ||
		len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact {
		t.Errorf("the victim's trace: %s", tr.AppendJSON(nil))
	}
	h.refused("sender", 4)
	h.unharmed(t)
	h.nothingOf(t)
	for _, rec := range h.records() {
		if t1, ok := rec.(*trace.Trace); ok && (t1.QName == "nothing.test." || t1.Exchange == nil || len(t1.Diagnosis) > 0) {
			t.Errorf("a trace out of nothing: %s", t1.AppendJSON(nil))
		}
	}
	if n := len(h.traces("victim.test.", 1)); n != 1 {
		t.Errorf("the victim has %d traces", n)
	}
}

// Who runs a DNS server of his own can say of it what he likes, but not of CoreDNS, nor of
// clients that did not ask it: his records make no finding.
func TestForgedRecordOfAServer(t *testing.T) {
	h := newHostileRig(t)
	// The attacker's server is the test itself, in the pod client-b.
	own := netip.AddrPortFrom(h.host.V4, 53)
	if _, err := h.Serve(h.host.Name, own); err != nil {
		t.Fatal(err)
	}
	if res, err := h.Client("client-a").Exchange(t.Context(), lab.Query{Name: "attacker.test.", Server: own}); err != nil {
		t.Fatalf("%v: %+v", err, res)
	}
	h.trace("attacker.test.")
	const port, id = 45200, 4343
	for i, at := range []netip.AddrPort{own, netip.AddrPortFrom(h.Host(lab.CoreDNS).V4, 53), {}} {
		q := h.forgedRecord(fmt.Sprintf("claimed%d.test.", i), 40010, 10)
		q.ServerIP, q.ServerPort = at.Addr(), 53
		h.reportSelf(q)
	}
	h.answered(lab.Query{Name: "victim.test.", LocalPort: port, ID: id})
	h.reportSelf(h.forgedRecord("victim.test.", port, id))
	tr := h.trace("victim.test.")
	if tr.Query == nil || tr.Query.Error != "" || len(tr.Diagnosis) != 0 || len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinExact {
		t.Errorf("the victim's trace: %s", tr.AppendJSON(nil))
	}
	h.refused("sender", 2)
	h.unharmed(t)
	for _, rec := range h.records() {
		t1, ok := rec.(*trace.Trace)
		if !ok {
			continue
		}
		if len(t1.Diagnosis) != 0 || t1.QName == "claimed1.test." {
			t.Errorf("%s", t1.AppendJSON(nil))
		}
		if q := t1.Query; q != nil && q.Error == attackersWords && (!q.Unverified || t1.Exchange != nil || len(t1.Upstreams) != 0) {
			t.Errorf("an attacker is believed: %s", t1.AppendJSON(nil))
		}
	}
}

// Whoever may write to the socket cannot have packets read as DNS that are not, but those
// of a socket of his own.
func TestForgedServer(t *testing.T) {
	h := newHostileRig(t)
	const port = 5999
	target := netip.AddrPortFrom(h.Host(lab.Upstream).V4, port)
	if _, err := h.Serve(lab.Upstream, target); err != nil {
		t.Fatal(err)
	}
	// A process that holds no socket at the port says so.
	q := h.forgedRecord("claim.test.", 40020, 11)
	q.ServerIP, q.ServerPort = target.Addr(), port
	stranger{}.report(h, lines(q)...)
	h.refused("sender", 1)
	for i := range 3 {
		if _, err := h.Client("client-a").Exchange(t.Context(), lab.Query{Name: fmt.Sprintf("private%d.test.", i), Server: target}); err != nil {
			t.Fatal(err)
		}
	}
	h.unharmed(t)
	for _, rec := range h.records() {
		if ex, ok := rec.(*trace.Exchange); ok && ex.ServerPort == port {
			t.Errorf("packets at a port that a stranger named are read: %s", ex.AppendJSON(nil))
		}
	}
	h.nothingOf(t)
}

// hugeDatagram is a record with as many attempts as make so many bytes.
func (h *hostileRig) hugeDatagram(size int) []byte {
	q := h.forgedRecord("huge.test.", 40030, 12)
	line := q.AppendJSON(nil)
	for len(line) < size {
		q.Upstreams = append(q.Upstreams, slices.Repeat(q.Upstreams[:1], 1+(size-len(line))/200)...)
		line = q.AppendJSON(nil)
	}
	return line
}

// Records of 190 kB at 800 a second, and of 60 kB as fast as they go: memory stays bounded,
// they are refused and counted, and lookups go on. Small ones that are dated ahead as far as
// is believed, to wait for long, take no more.
func TestHugeRecords(t *testing.T) {
	h := newHostileRig(t)
	sent := stranger{every: time.Second / 800, last: 4 * time.Second}.report(h, h.hugeDatagram(190_000))
	if sent < 1000 {
		t.Errorf("%v of 3200 could be sent", sent)
	}
	h.refused("size", sent)
	sent = stranger{last: 2 * time.Second}.report(h, h.hugeDatagram(60_000))
	h.refused("rate", sent/2)
	var slow [][]byte
	for i := range 8000 {
		q := h.forgedRecord(fmt.Sprintf("slow%d.test.", i), uint16(1024+i), uint16(i))
		q.Time = time.Now().Add(4500 * time.Millisecond)
		slow = append(slow, lines(q)...)
	}
	stranger{}.report(h, slow...)
	h.unharmed(t)
	h.nothingOf(t)
}

// The record socket takes records of root and of the group as which deploy/ lets CoreDNS
// run, and of nobody else.
func TestWhoMaySendRecords(t *testing.T) {
	r := tracerOnly(t)
	if err := os.Chmod(r.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		uid, gid int
		may      bool
	}{{0, 0, true}, {65532, 65532, true}, {65532, 65534, false}, {65534, 65534, false}, {1000, 65532, true}} {
		err := as(tc.uid, tc.gid, func() error { return connect(r.RecordSocket()) })
		if (err == nil) != tc.may {
			t.Errorf("user %d, group %d: %v", tc.uid, tc.gid, err)
		}
		if err := as(tc.uid, tc.gid, func() error { return connect(r.APISocket()) }); err == nil && tc.uid != 0 {
			t.Errorf("user %d, group %d reaches the API", tc.uid, tc.gid)
		}
	}
}

// connect connects to a unix socket of whatever kind.
func connect(path string) error {
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		fd, err := unix.Socket(unix.AF_UNIX, kind, 0)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err := unix.Close(fd); err != nil {
			return err
		}
		if err != unix.EPROTOTYPE {
			return err
		}
	}
	return unix.EPROTOTYPE
}

// as runs do as another user as far as files are concerned (setfsuid(2)), in a thread that
// is not used again, and without groups.
func as(uid, gid int, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
			done <- e
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0); e != 0 {
			done <- e
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0); e != 0 {
			done <- e
			return
		}
		done <- do()
	}()
	return <-done
}
