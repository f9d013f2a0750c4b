package integration

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// daemonSetLimit is the limit of memory of deploy/'s DaemonSet.
const daemonSetLimit = 384 << 20

// attackTime is how long all attacks last: DNSTRACE_ATTACK is for longer.
func attackTime(t *testing.T) time.Duration {
	t.Helper()
	set := os.Getenv("DNSTRACE_ATTACK")
	if set == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(set)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// All at once, while others look up names: records that are huge, too many, impossible,
// and forged, of lookups that there are and that there are not; packets that nobody can
// read, and one query, and connections, to ever new addresses; and scrapes without end. Every lookup is answered, and traced in whole or with what is missing; memory stays
// below the limit of the DaemonSet; nothing that was attacked with is in any record; and
// what was refused is counted by reason.
func TestAllAttacksTogether(t *testing.T) {
	h := newHostileRig(t)
	const name, rate = "together", 100
	last := attackTime(t)
	var running sync.WaitGroup
	attack := func(s stranger, datagrams ...[]byte) {
		s.last = last
		running.Go(func() {
			if sent := s.report(h, datagrams...); sent == 0 {
				t.Error("an attack did not arrive")
			}
		})
	}
	end := h.load(name)
	attack(stranger{every: time.Second / 800}, h.hugeDatagram(190_000))
	attack(stranger{every: time.Millisecond}, h.hugeDatagram(60_000))
	var impossible, forged [][]byte
	for _, records := range h.impossibleRecords("impossible.test.") {
		impossible = append(impossible, lines(records...)...)
	}
	impossible = append(impossible, []byte("{"), bytes.Repeat([]byte("{}\n"), 10_000))
	attack(stranger{every: 5 * time.Millisecond}, impossible...)
	for i := range 3 * rate {
		// Of the first lookups, which are still to come, with what can be known of them.
		forged = append(forged, lines(h.forgedRecord(fmt.Sprintf("%s%d.test.", name, i), uint16(40000+i), uint16(i)))...)
	}
	attack(stranger{every: 2 * time.Millisecond}, forged...)
	running.Go(func() { h.packets(last) })
	running.Go(func() { h.scrapes(t, last) })
	peak := int64(0)
	for until := time.Now().Add(last); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		peak = max(peak, residentMemory(t, h.tracer.Pid()))
	}
	running.Wait()
	results := end()
	unharmed(t, results)
	h.unharmed(t)
	if peak > daemonSetLimit {
		t.Errorf("the tracer had %d MiB, the DaemonSet lets it have %d", peak>>20, daemonSetLimit>>20)
	}
	for _, reason := range []string{"size", "rate", "field", "time", "duration", "malformed", "sender"} {
		h.refused(reason, 1)
	}
	if err := h.tracer.Stop(); err != nil {
		t.Error(err)
	}
	h.nothingOf(t)
	t.Logf("%d lookups, %d MiB at most\n%s", len(results), peak>>20, h.tracer.Stderr())
	h.wholeUnderAttack(t, name, results)
}

// wholeUnderAttack wants nearly all lookups to be traced in whole, and of the others that
// their traces say what is missing.
func (h *hostileRig) wholeUnderAttack(t *testing.T, name string, results []lab.Result) {
	t.Helper()
	traces := map[string]*trace.Trace{}
	for _, rec := range h.records() {
		tr, ok := rec.(*trace.Trace)
		if !ok || !strings.HasPrefix(tr.QName, name) {
			continue
		}
		if len(tr.Diagnosis) != 0 && tr.Exchange == nil {
			t.Errorf("a finding out of nothing: %s", tr.AppendJSON(nil))
		}
		wholeAndRight(t, tr)
		traces[tr.QName] = tr
	}
	whole := 0
	for _, res := range results {
		tr := traces[res.Name]
		switch {
		case tr == nil:
		case tr.Query != nil && !tr.Query.Unverified && tr.Exchange != nil && len(tr.Upstreams) == 1 && tr.Upstreams[0].Join == trace.JoinExact:
			whole++
		case len(tr.Gaps) == 0:
			t.Errorf("%s lacks something without a word: %s", res.Name, tr.AppendJSON(nil))
		}
	}
	// Others on the machine may keep tracer and CoreDNS from their work for a while.
	if whole < len(results)*95/100 {
		t.Errorf("%d of %d lookups are traced in whole", whole, len(results))
	}
	t.Logf("%d of %d lookups are traced in whole", whole, len(results))
}

// packets sends messages that nobody can read, and forged ones, for some time.
func (h *hostileRig) packets(last time.Duration) {
	me, coredns := h.host.V4, h.Host(lab.CoreDNS).V4
	n := 0
	for end := time.Now().Add(last); time.Now().Before(end); {
		for _, m := range hostileMessages {
			h.everywhere(n)
			n++
			h.raw(ipv4{src: me, dst: coredns, protocol: 17}.packet(udpHeader(5000, 53, response(m))))
			h.raw(ipv4{src: coredns, dst: h.Host("client-a").V4, protocol: 17}.packet(udpHeader(53, 40000, response(m))))
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// everywhere sends one query, with one ID and from one port, to another address each time, and
// begins a connection there, whose next byte never comes while those behind it do.
func (h *hostileRig) everywhere(n int) {
	const syn, ack = 0x02, 0x10
	to := netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) // RFC 2544: nobody is there
	tcp := func(seq int, flags byte, payload []byte) []byte {
		return slices.Concat(be16(5001), be16(53), be16(0), be16(seq), make([]byte, 4), []byte{0x50, flags}, be16(1024), make([]byte, 4), payload)
	}
	h.raw(ipv4{src: h.host.V4, dst: to, protocol: 17}.packet(udpHeader(5001, 53, append(header(7, 0x0100, 1, 0, 0, 0), aQuestion...))))
	h.raw(ipv4{src: h.host.V4, dst: to, protocol: 6}.packet(tcp(99, syn, nil)))
	h.raw(ipv4{src: h.host.V4, dst: to, protocol: 6}.packet(tcp(5000, ack, make([]byte, 1000))))
}

// scrapes asks for the metrics for some time.
func (h *hostileRig) scrapes(t *testing.T, last time.Duration) {
	for end := time.Now().Add(last); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if text := scrape(t, h.metrics); len(text) == 0 {
			t.Error("no metrics")
		}
	}
}

// residentMemory is what a process has in memory, that of files and of what it shares
// included (proc_pid_status(5)).
func residentMemory(t *testing.T, pid int) int64 {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(string(content), "VmRSS:")
	var n int64
	if _, err := fmt.Sscan(value, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}
