package assemble

import (
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// retried is a lookup that is truncated and goes on over TCP at once, and what its server
// asked for each: the records of both, and its packets. over is how long the first
// attempt takes: its client may have the answer before.
func retried(port uint16, start, over time.Duration) (first, second []trace.Record) {
	const name, us = "a.example.", time.Microsecond
	udp := with(fromClient(name, port, start, 650*us), shortened)
	tcp := with(fromClient(name, port+1, start+700*us, 900*us), overTCP)
	first = []trace.Record{udp, record(udp, 20*us, over+100*us, attempt(1, 80*us, over, trace.OutcomeOK)), with(toUpstream(name, port+2, start+150*us, 400*us), shortened)}
	second = []trace.Record{record(tcp, 20*us, 800*us, attempt(1, 20*us, 700*us, trace.OutcomeOK)), tcp, with(toUpstream(name, port+3, start+800*us, 500*us), overTCP)}
	return first, second
}

// A client that goes on over TCP has another lookup, with an attempt of its own: its
// exchange is not what the attempt before went on with.
func TestRetryOverTCPIsAnotherAttempt(t *testing.T) {
	const want = "1000 recorded [1: 1002 exact]\n1001 recorded [1: 1003 exact]"
	for _, over := range []time.Duration{500 * time.Microsecond, 2 * ms} {
		first, second := retried(1000, 0, over)
		everyWay(t, append(first, second...), func(t *testing.T, traces []*trace.Trace) {
			if got := strings.ReplaceAll(outlines(traces), "inferred", "exact"); got != want {
				t.Errorf("the first attempt takes %s: got:\n%s\nwant:\n%s", over, got, want)
			}
		})
	}
	first, second := retried(1000, 0, 500*time.Microsecond)
	for _, late := range []time.Duration{100 * ms, 400 * ms, 700 * ms, 900 * ms} {
		var list []comes
		for _, r := range append(first, second[1:]...) {
			list = append(list, comes{60 * ms, r})
		}
		traces := assembleLive(&openUntil{}, append(list, comes{late, second[0]})...)
		if got := outlines(traces); got != want {
			t.Errorf("the second record comes after %s: got:\n%s\nwant:\n%s", late, got, want)
		}
	}
}

// Where the record of the second does not come at all, its exchange is still of it.
func TestRetryOverTCPWithoutRecord(t *testing.T) {
	first, second := retried(1000, 0, 500*time.Microsecond)
	everyWay(t, append(first, second[1:]...), func(t *testing.T, traces []*trace.Trace) {
		if got := outlines(traces); got != "1000 recorded [1: 1002 exact]\n1001 [1003 inferred]" {
			t.Errorf("got:\n%s", got)
		}
	})
}

// What left over TCP before the answer over UDP came is not because that was truncated: a client
// that asks for A and AAAA goes on over TCP as soon as one of them is.
func TestOverTCPBeforeTheAnswer(t *testing.T) {
	const name, us = "a.example.", time.Microsecond
	udp := with(fromClient(name, 1000, 0, 1800*us), shortened)
	tcp := with(fromClient(name, 1001, 1150*us, 4*ms), overTCP)
	all := []trace.Record{
		udp, record(udp, 20*us, 1750*us, attempt(1, 20*us, 1600*us, trace.OutcomeOK)), with(toUpstream(name, 1002, 100*us, 1500*us), shortened),
		tcp, record(tcp, 20*us, 3900*us, attempt(1, 20*us, 3800*us, trace.OutcomeOK)), with(toUpstream(name, 1003, 1400*us, 400*us), overTCP),
	}
	everyWay(t, all, func(t *testing.T, traces []*trace.Trace) {
		if got := strings.ReplaceAll(outlines(traces), "inferred", "exact"); got != "1000 recorded [1: 1002 exact]\n1001 recorded [1: 1003 exact]" {
			t.Errorf("got:\n%s", got)
		}
	})
}
