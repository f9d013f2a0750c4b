package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// callOfSix is one call of a program, and a healthy lookup after it: A and AAAA under two
// suffixes, which do not exist, and of the name itself, of which AAAA got SERVFAIL late and
// A with a finding.
func callOfSix() string {
	var file strings.Builder
	for i, m := range []struct {
		name, qtype, rcode string
		took               time.Duration
		finding            string
	}{
		{"www.test.demo.test.", "A", "NXDOMAIN", time.Millisecond, ""},
		{"www.test.demo.test.", "AAAA", "NXDOMAIN", time.Millisecond, ""},
		{"www.test.svc.test.", "A", "NXDOMAIN", 2 * time.Millisecond, ""},
		{"www.test.svc.test.", "AAAA", "", 0, "no-response-seen"},
		{"www.test.", "A", "NOERROR", 9 * time.Second, "retransmission"},
		{"www.test.", "AAAA", "SERVFAIL", time.Second, ""},
		{"other.test.", "A", "NOERROR", time.Millisecond, ""},
	} {
		t := &trace.Trace{
			Header: trace.Header{V: trace.Version, Record: trace.KindTrace, Time: start.Add(time.Duration(i) * time.Millisecond), TraceID: trace.TraceID{0: 1, 15: byte(i + 1)}, Flow: trace.Flow{1}},
			QName:  m.name, QType: m.qtype, RCode: m.rcode, Outcome: trace.OutcomeAnswered, Resolution: trace.TraceID{0: 1, 15: 1}.String(),
		}
		if m.rcode == "" {
			t.Outcome = trace.OutcomeUnanswered
		} else {
			t.Duration = trace.SecondsPtr(m.took)
		}
		if m.finding != "" {
			t.Diagnosis = []trace.Finding{{Code: m.finding, Summary: "It is " + m.finding + "."}}
		}
		if m.name == "other.test." {
			t.Resolution = ""
		}
		file.Write(append(t.AppendJSON(nil), '\n'))
	}
	return file.String()
}

// explain draws of a call the lookup that is meant: the result that was asked for, the
// failing one before the healthy one, what matches before what does not.
func TestExplainDrawsTheWorstOfACall(t *testing.T) {
	for _, tc := range []struct{ word, drawn string }{
		{"www.test", "6 of 6"}, {"*.test", "4 of 6"}, {"www.test.*", "4 of 6"},
		{"NXDOMAIN", "3 of 6"}, {"SERVFAIL", "6 of 6"}, {"unanswered", "4 of 6"},
		{"retransmission", "5 of 6"}, {"no-response-seen", "4 of 6"},
		// Of a name with a suffix, a file is not searched for the name without it.
		{"www.test.svc.test", "2 of 2"}, {"www.test.demo.test", "1 of 2"},
	} {
		status, out, stderr := call(t, callOfSix(), "explain", tc.word, "-f", `qname != "other.test."`, "--from", "-")
		_, all, _ := strings.Cut(tc.drawn, " of ")
		if status != exitOK || !strings.Contains(out, "━━ "+tc.drawn+" ━") || strings.Count(out, "━━ ") != 1 || !strings.Contains(out, "ONE CALL, "+all+" LOOKUPS") {
			t.Errorf("%s: want %s\n%s%s", tc.word, tc.drawn, out, stderr)
		}
	}
	// A healthy one that matches is not drawn beside one that is wrong.
	healthy := strings.ReplaceAll(callOfSix(), "SERVFAIL", "NOERROR")
	healthy = strings.Replace(healthy, `"code":"retransmission"`, `"code":"server-slow"`, 1)
	if _, out, _ := call(t, healthy, "explain", "www.test", "-f", `!any(diagnosis, .code == "server-slow")`, "--from", "-"); !strings.Contains(out, "━━ 4 of 5 ━") {
		t.Errorf("all that match are well:\n%s", out)
	}
	if _, out, _ := call(t, callOfSix(), "explain", "www.test", "--full", "--from", "-"); strings.Count(out, "━━ ") != 6 {
		t.Errorf("--full:\n%s", out)
	}
	if _, out, _ := call(t, callOfSix(), "explain", "--from", "-"); strings.Contains(out, "ONE CALL") || !strings.Contains(out, "other.test.") {
		t.Errorf("the latest:\n%s", out)
	}
}

// A name that nobody asked for is that name with a search suffix, as the program that asked
// for it tried it; with a final dot it is no other.
func TestExplainFindsANameThatWasNotAsked(t *testing.T) {
	file := strings.ReplaceAll(callOfSix(), `"qname":"www.test."`, `"qname":"www.test.cluster.test."`)
	if _, out, stderr := call(t, file, "explain", "www.test", "--from", "-"); !strings.Contains(out, "ONE CALL, 6 LOOKUPS") || !strings.Contains(out, "━━ 4 of 6 ━") {
		t.Errorf("%s%s", out, stderr)
	}
	if status, out, _ := call(t, file, "explain", "www.test.", "--from", "-"); status != exitFailed || out != "" {
		t.Errorf("with a final dot: %d\n%s", status, out)
	}
}

// As JSON it is records as they are, and of one call the one that is meant first.
func TestExplainWritesTheWorstOfACall(t *testing.T) {
	file := callOfSix()
	lines := strings.Split(file, "\n")
	for _, tc := range []struct {
		args []string
		want []int // lines
	}{
		{[]string{"www.test"}, []int{5}},
		{[]string{"www.test", "-n", "3"}, []int{5, 4}},
		{[]string{"www.test", "--all"}, []int{5, 4}},
		{[]string{"*", "-n", "2"}, []int{6, 3}},
		{[]string{"NXDOMAIN"}, []int{2}},
		{[]string{trace.TraceID{0: 1, 15: 5}.String()}, []int{4}},
	} {
		_, out, stderr := call(t, file, append(append([]string{"explain", "-o", "json"}, tc.args...), "--from", "-")...)
		want := ""
		for _, i := range tc.want {
			want += lines[i] + "\n"
		}
		if out != want || !json.Valid([]byte(lines[0])) {
			t.Errorf("%q: %s\nwant %s%s", tc.args, out, want, fmt.Sprint(stderr))
		}
	}
}
