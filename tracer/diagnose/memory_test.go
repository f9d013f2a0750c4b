package diagnose

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

var epoch = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func TestWindow(t *testing.T) {
	w := newWindow(12 * time.Second)
	for i := range 24 { // one a second, every third of some kind
		w.add(epoch.Add(time.Duration(i)*time.Second), i%3 == 0)
	}
	for _, tc := range []struct {
		at        time.Duration
		all, some int
	}{
		{23 * time.Second, 12, 4},
		{29 * time.Second, 6, 2},
		{60 * time.Second, 0, 0},
	} {
		if all, some := w.sum(epoch.Add(tc.at)); all != tc.all || some != tc.some {
			t.Errorf("at %s: %d of %d, expected %d of %d", tc.at, some, all, tc.some, tc.all)
		}
	}
	w.add(time.Time{}, true)
	// What comes too late for its slot is not counted with what is newer.
	w.add(epoch, true)
	if all, some := w.sum(epoch.Add(23 * time.Second)); all != 12 || some != 4 {
		t.Errorf("%d of %d after a late one", some, all)
	}
}

func lookup(i int, rcode string) *trace.Trace {
	ex := &trace.Exchange{Outcome: trace.OutcomeAnswered}
	ex.Time = epoch.Add(time.Duration(i) * time.Millisecond)
	ex.QName, ex.QType, ex.Protocol, ex.RCode = fmt.Sprintf("n%d.example.", i), "A", "udp", rcode
	ex.ClientIP = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	ex.TraceID[0], ex.TraceID[1], ex.TraceID[2] = byte(i), byte(i>>8), byte(i>>16)
	ex.Duration = trace.SecondsPtr(time.Millisecond)
	leg := &trace.Exchange{Outcome: trace.OutcomeAnswered, ServerIP: ex.ClientIP, ServerPort: 53}
	leg.Time, leg.RCode = ex.Time, rcode
	return &trace.Trace{Header: ex.Header, Exchange: ex, RCode: rcode, Upstreams: []trace.Upstream{{Exchange: leg}}}
}

// Whoever asks, and whatever for: what is remembered is bounded, and what is old
// is forgotten.
func TestMemoryIsBounded(t *testing.T) {
	d := New()
	for i := range 3 * maxLookups {
		d.Trace(lookup(i, "NXDOMAIN"))
	}
	m := d.memory
	if len(m.upstreams) > maxUpstreams || len(m.clients) > maxClients || len(m.lookups) > maxLookups || len(m.calls) > maxLookups || len(m.order)-m.head > maxLookups {
		t.Errorf("%d upstreams, %d clients, %d lookups, %d calls", len(m.upstreams), len(m.clients), len(m.lookups), len(m.calls))
	}
	late := lookup(1, "NOERROR")
	late.Exchange.Time = epoch.Add(time.Hour)
	d.Trace(late)
	if len(m.lookups) != 1 || len(m.calls) != 1 {
		t.Errorf("%d lookups and %d calls are remembered for an hour", len(m.lookups), len(m.calls))
	}
}

// A storm is reported once a window, not with each of its lookups.
func TestStormIsToldOnce(t *testing.T) {
	d := New()
	reported := 0
	for i := range 60 * 20 { // twenty a second for a minute
		tr := lookup(i*50, "NXDOMAIN")
		tr.Exchange.ClientIP = netip.MustParseAddr("10.244.0.4")
		for _, f := range d.Trace(tr) {
			if f.Code == NXDomainStorm {
				reported++
			}
		}
	}
	if reported < 4 || reported > 5 {
		t.Errorf("told %d times in a minute", reported)
	}
}

// BenchmarkDiagnose is what a healthy lookup costs, with all that is remembered
// of others.
func BenchmarkDiagnose(b *testing.B) {
	d := New()
	i := 0
	for b.Loop() {
		tr := lookup(i, "NOERROR")
		tr.Upstreams[0].Exchange.ServerIP = netip.MustParseAddr("192.0.2.1")
		tr.Exchange.ClientIP = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		d.Trace(tr)
		i++
	}
}

// The memory that a burst needed is let go of when it is forgotten, and what is
// remembered then is still found.
func TestMemoryAfterABurst(t *testing.T) {
	d := New()
	for i := range maxLookups {
		d.Trace(lookup(i, "NOERROR"))
	}
	const quiet = 4000 // one every ten milliseconds: 2,000 within rememberFor
	for i := range quiet {
		tr := lookup(maxLookups+10*i, "NOERROR")
		d.Trace(tr)
		m := d.memory
		key := lookupKey{clientOf(tr.Exchange), tr.Exchange.QName}
		if len(m.of(key)) != 1 || len(m.calls[callID(tr)].lookups) != 1 {
			t.Fatalf("lookup %d is not remembered", i)
		}
	}
	m := d.memory
	if m.room > maxLookups/2 || len(m.unused) > maxUnused || cap(m.order) > maxLookups {
		t.Errorf("there is memory for %d lookups, in order for %d, and %d unused; %d are remembered", m.room, cap(m.order), len(m.unused), len(m.order)-m.head)
	}
	if n := len(m.order) - m.head; n < 1000 || len(m.lookups) != n || len(m.calls) != n {
		t.Errorf("%d in order, %d lookups, %d calls", n, len(m.lookups), len(m.calls))
	}
}
