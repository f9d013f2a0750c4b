package exchange

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// glibc asks again after 5 s from the same port: with the same timeout it is the same
// exchange, which is reported once.
func TestRetryAtTheTimeoutIsTheSameExchange(t *testing.T) {
	f := newFeed(t)
	f.table.cfg.Timeout = 5 * time.Second
	q := query(t, "a.example.", 7)
	f.packet(tx, podNS, 2, pod, service, q)
	f.after(5*time.Second + 5*time.Millisecond)
	f.throughService(q, response(t, "a.example.", 7, 0))
	f.after(time.Minute)
	f.after(time.Minute)
	if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.Transmissions != 2 || ex.Replaces {
		t.Errorf("%s, %d transmissions, replaces %t", ex.Outcome, ex.Transmissions, ex.Replaces)
	}
}

// What goes on after it was reported is reported again, whole, and says so.
func TestReportedAgainReplaces(t *testing.T) {
	f := newFeed(t)
	q := query(t, "a.example.", 7)
	f.packet(tx, podNS, 2, pod, service, q)
	f.after(9 * time.Second)
	f.after(2 * time.Second)
	f.throughService(q, response(t, "a.example.", 7, 0))
	f.after(time.Second)
	f.after(time.Minute)
	if len(f.got) != 2 {
		t.Fatalf("%d records", len(f.got))
	}
	first, again := f.got[0], f.got[1]
	if first.Replaces || first.Outcome != trace.OutcomeUnanswered || first.Path.Len() != 1 || !again.Replaces || again.Outcome != trace.OutcomeAnswered ||
		again.Path.Len() != 9 || again.Transmissions != 2 || !again.Time.Equal(first.Time) || again.TraceID != first.TraceID {
		t.Errorf("%+v\n%+v", first, again)
	}
	if f.table.Stats().Open != 0 {
		t.Errorf("%+v", f.table.Stats())
	}
}

// Nothing new is not reported again, however often the table looks.
func TestNothingNewIsNotReportedAgain(t *testing.T) {
	f := newFeed(t)
	f.packet(tx, podNS, 2, pod, service, query(t, "a.example.", 7))
	for range 100 {
		f.after(200 * time.Millisecond)
	}
	f.one()
	f.table.Flush(f.emit)
	f.one()
}

// A response that its client reads late is waited for.
func TestReadLater(t *testing.T) {
	f := newFeed(t)
	f.table.cfg.Observes = everything
	q, r := query(t, "a.example.", 7), response(t, "a.example.", 7, 0)
	f.packet(tx, podNS, 2, pod, server, q)
	f.packet(delivered, serverNS, 0, pod, server, q)
	f.skb++
	f.packet(tx, serverNS, 2, server, pod, r)
	f.packet(delivered, podNS, 0, server, pod, r)
	f.after(250 * time.Millisecond)
	if len(f.got) != 0 {
		t.Fatal("reported before its client could read")
	}
	f.packet(read, podNS, 0, server, pod, r)
	f.after(200 * time.Millisecond)
	if ex := f.one(); milestones(ex) != "01- 234" || ex.Duration.Duration() != 3*time.Microsecond {
		t.Errorf("%s, %s", milestones(ex), ex.Duration.Duration())
	}
}
