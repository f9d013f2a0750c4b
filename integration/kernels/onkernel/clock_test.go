package onkernel

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
	"github.com/dnstrace/dnstrace/trace"
)

// ownMachine is set by init: nobody else minds what happens to this machine's clock.
const ownMachine = "DNSTRACE_TEST_MACHINE"

// slow is how long the server takes: the clock is stepped meanwhile.
const slow = 300 * time.Millisecond

// Somebody steps the system's time by an hour, forward and back, while a query is
// open: it is answered, has the duration that it took, and begins when the clock said
// that it did, before the step or after it. The one after it has the new time.
func TestClockSteppedByAnHour(t *testing.T) {
	if lacks(t, feature.ClockStep) {
		return // the clock of a machine that others use is not ours to step
	}
	tr := startTracer(t)
	const address = "127.0.0.12:53"
	serve(t, "udp", address)
	client := dns.Client{Timeout: patience}
	lookup := func(name string) time.Time {
		t.Helper()
		began := time.Now()
		if _, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), address); err != nil {
			t.Fatal(err)
		}
		return began
	}
	for i, step := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		open, after := fmt.Sprintf("slow%d.test.", i), fmt.Sprintf("after%d.test.", i)
		stepped := make(chan error, 1)
		time.AfterFunc(slow/3, func() { stepped <- stepClock(step) })
		began := lookup(open)
		if err := <-stepped; err != nil {
			t.Fatal(err)
		}
		began2 := lookup(after)
		ex := tr.exchange(open)
		if near(ex.Time, began) == near(ex.Time, began.Add(step)) {
			t.Errorf("%s by %s: began at %s, expected %s before or after the step", open, step, ex.Time, began)
		}
		answered(t, ex)
		if ex = tr.exchange(after); !near(ex.Time, began2) {
			t.Errorf("%s by %s: began at %s, expected %s", after, step, ex.Time, began2)
		}
		answered(t, ex)
	}
}

// answered wants an exchange that took as long as the server made it.
func answered(t *testing.T, ex *trace.Exchange) {
	t.Helper()
	if ex.Outcome != trace.OutcomeAnswered || ex.Duration == nil || ex.Duration.Duration() < 0 || ex.Duration.Duration() > time.Minute {
		t.Errorf("%s: %s after %v", ex.QName, ex.Outcome, ex.Duration)
	}
}

// near allows for a machine that is emulated.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < time.Minute }

// stepClock moves the system's time.
func stepClock(by time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return err
	}
	to := unix.NsecToTimespec(now.Nano() + int64(by))
	return unix.ClockSettime(unix.CLOCK_REALTIME, &to)
}
