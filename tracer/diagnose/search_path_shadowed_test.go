package diagnose

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// That a suffix of a search list answers is what it is for; what shows that the name itself
// was meant is reported, once a call.
func TestSearchPathShadowed(t *testing.T) {
	type ask struct {
		call         byte
		name, answer string // NXDOMAIN where it is empty
		stopped      bool   // SERVFAIL, and nothing followed
	}
	cluster := func(call byte, name, suffix, answer string) []ask {
		return []ask{
			{call: call, name: name + ".demo.svc.cluster.local."}, {call: call, name: name + ".svc.cluster.local."},
			{call: call, name: name + ".cluster.local."}, {call: call, name: name + "." + suffix, answer: answer},
		}
	}
	both := func(lists ...[]ask) (all []ask) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	for _, tc := range []struct {
		name     string
		asks     []ask
		reported int
	}{
		{"two names that are absolute, the same answer", both(cluster(1, "www.a.com", "corp.test.", "192.0.2.1"), cluster(2, "www.b.org", "corp.test.", "192.0.2.1")), 1},
		{"the suffix first, which another call went through", both(cluster(1, "www.a.com", "corp.test.", "192.0.2.1"), []ask{{2, "www.b.org.corp.test.", "192.0.2.1", false}}), 1},
		{"twice in a call", both(cluster(1, "www.a.com", "corp.test.", "192.0.2.1"), []ask{{2, "www.b.org.corp.test.", "192.0.2.1", false}, {2, "www.b.org.corp.test.", "192.0.2.1", false}}), 1},
		{"the suffix first, which nobody knows", []ask{{1, "www.a.com.corp.test.", "192.0.2.1", false}, {2, "www.b.org.corp.test.", "192.0.2.1", false}}, 0},
		{"the same name twice", both(cluster(1, "www.a.com", "corp.test.", "192.0.2.1"), cluster(2, "www.a.com", "corp.test.", "192.0.2.1")), 0},
		{"an answer of its own for each", both(cluster(1, "www.a.com", "corp.test.", "192.0.2.1"), cluster(2, "www.b.org", "corp.test.", "192.0.2.2")), 0},
		{"short names, the same answer", both(cluster(1, "wiki", "corp.test.", "192.0.2.1"), cluster(2, "git.eng", "corp.test.", "192.0.2.1")), 0},
		{"no public domain", both(cluster(1, "a.b.own", "corp.test.", "192.0.2.1"), cluster(2, "c.d.own", "corp.test.", "192.0.2.1")), 0},
		{"a Service of a namespace", both(cluster(1, "www.a.com", "corp.test.", "192.0.2.1"), []ask{{2, "pod-0.db.dev.demo.svc.cluster.local.", "", false},
			{2, "pod-0.db.dev.svc.cluster.local.", "192.0.2.1", false}, {3, "pod-1.db.dev.demo.svc.cluster.local.", "", false}, {3, "pod-1.db.dev.svc.cluster.local.", "192.0.2.1", false}}), 0},
		{"a Service's full name", cluster(1, "api.demo.svc.cluster.local", "corp.test.", "192.0.2.1"), 1},
		{"the name itself has another answer", append([]ask{{9, "git.eng.", "192.0.2.7", false}}, cluster(1, "git.eng", "corp.test.", "192.0.2.1")...), 1},
		{"the name itself has the same answer", append([]ask{{9, "git.eng.", "192.0.2.1", false}}, cluster(1, "git.eng", "corp.test.", "192.0.2.1")...), 0},
		{"the name itself was asked first", append([]ask{{1, "api.demo.svc.cluster.local.", "", false}}, cluster(1, "api.demo.svc.cluster.local", "corp.test.", "192.0.2.1")...), 0},
		{"a suffix fails and ends the list", []ask{{1, "a.b.demo.svc.cluster.local.", "", false}, {1, "a.b.corp.test.", "", true}}, 1},
		{"the name itself fails", []ask{{1, "a.b.demo.svc.cluster.local.", "", false}, {1, "a.b.", "", true}}, 0},
		{"a name without a list fails", []ask{{1, "a.b.corp.test.", "", true}}, 0},
	} {
		d, reported := New(), 0
		for i, a := range tc.asks {
			ex := asked()
			ex.Time = ex.Time.Add(time.Duration(i) * time.Millisecond)
			ex.QName, ex.QType, ex.RCode, ex.Outcome, ex.Duration = a.name, "A", "NXDOMAIN", trace.OutcomeAnswered, trace.SecondsPtr(time.Millisecond/2)
			n := 0
			switch {
			case a.answer != "":
				ex.RCode, ex.Answers, n = "NOERROR", []trace.Answer{{Type: "A", Value: a.answer}}, 1
			case a.stopped:
				ex.RCode = "SERVFAIL"
			}
			ex.AnswerCount = &n
			ex.TraceID = trace.TraceID{1, byte(i)}
			tr := &trace.Trace{Header: ex.Header, Exchange: ex, RCode: ex.RCode, Outcome: ex.Outcome, Resolution: trace.TraceID{2, a.call}.String(), Stopped: a.stopped}
			for _, f := range d.Trace(tr) {
				if f.Code == SearchPathShadowed {
					reported++
				}
			}
		}
		if reported != tc.reported {
			t.Errorf("%s: told %d times, expected %d", tc.name, reported, tc.reported)
		}
		if len(d.memory.suffixes) > maxSuffixes {
			t.Errorf("%d suffixes are remembered", len(d.memory.suffixes))
		}
	}
}
