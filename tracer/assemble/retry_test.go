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

// The second lookup's server waits in vain, and records it seconds after the first: what it
// sent is no part of a lookup that was answered before.
func TestRetryOverTCPThatIsNotAnswered(t *testing.T) {
	const name, us = "a.example.", time.Microsecond
	for _, over := range []time.Duration{500 * us, 800 * us, 2 * ms} {
		first, _ := retried(1000, 0, over)
		tcp := with(fromClient(name, 1001, 700*us, 0), overTCP)
		second := []trace.Record{tcp, record(tcp, 20*us, 4*sec+100*us, attempt(1, 20*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+40*us, 2*sec, trace.OutcomeTimeout)),
			with(toUpstream(name, 1003, 800*us, 0), overTCP), with(toUpstream(name, 1004, 2*sec+850*us, 0), overTCP)}
		everyWay(t, append(first, second...), func(t *testing.T, traces []*trace.Trace) {
			if got := strings.ReplaceAll(outlines(traces), "inferred", "exact"); got != "1000 recorded [1: 1002 exact]\n1001 recorded [1: 1003 exact] [2: 1004 exact]" {
				t.Errorf("the first attempt takes %s: got:\n%s", over, got)
			}
		})
	}
}

// One answer for A and AAAA is truncated, and the client goes on over TCP before the other query
// was even sent on: its attempt is then under way together with that over TCP, which is not
// answered.
func TestOverTCPBesideTheAttemptOverUDP(t *testing.T) {
	const name, us = "a.example.", time.Microsecond
	for _, sent := range []time.Duration{900 * us, 1000 * us, 1250 * us} {
		udp := with(fromClient(name, 1000, 0, 1900*us), shortened)
		tcp := with(fromClient(name, 1001, 800*us, 0), overTCP)
		all := []trace.Record{
			udp, record(udp, 20*us, 1850*us, attempt(1, 800*us, time.Millisecond, trace.OutcomeOK)), with(toUpstream(name, 1002, sent, 100*us), shortened),
			tcp, record(tcp, 20*us, 4*sec+600*us, attempt(1, 460*us, 2*sec, trace.OutcomeTimeout), attempt(2, 2*sec+470*us, 2*sec, trace.OutcomeTimeout)),
			with(toUpstream(name, 1003, 1400*us, 0), overTCP), with(toUpstream(name, 1004, 2*sec+1400*us, 0), overTCP),
		}
		everyWay(t, all, func(t *testing.T, traces []*trace.Trace) {
			if got := strings.ReplaceAll(outlines(traces), "inferred", "exact"); got != "1000 recorded [1: 1002 exact]\n1001 recorded [1: 1003 exact] [2: 1004 exact]" {
				t.Errorf("sent after %s: got:\n%s", sent, got)
			}
		})
	}
}
