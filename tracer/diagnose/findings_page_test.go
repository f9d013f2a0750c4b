package diagnose_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
	"github.com/dnstrace/dnstrace/tracer/dropreason"
)

// findingsPage has a row for each code.
const findingsPage = "../../docs/findings.md"

// pageRow is what the page says of a code.
type pageRow struct{ says, proof, not, kernels, halves string }

func pageRows(t *testing.T) map[string]pageRow {
	t.Helper()
	page, err := os.ReadFile(findingsPage)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]pageRow{}
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 6 {
			t.Fatalf("%d cells: %s", len(cells), line)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows[strings.Trim(cells[0], "`")] = pageRow{cells[1], cells[2], cells[3], cells[4], cells[5]}
	}
	return rows
}

// onlyPackets, onlyRecords and asLinux510 keep of a recorded case what one half of the two,
// or a tracer on the oldest kernel, would have of it.
func onlyPackets(r trace.Record) bool { _, ok := r.(*trace.Exchange); return ok }

func onlyRecords(r trace.Record) bool { return !onlyPackets(r) }

// asLinux510 takes out the reasons of drops (Linux 5.17), the reading of messages (6.3) and
// the processes of servers that did not answer (5.19).
func asLinux510(r trace.Record) bool {
	ex, ok := r.(*trace.Exchange)
	if !ok {
		return true
	}
	for i := range ex.Drops {
		d := &ex.Drops[i]
		if d.Reason != "NETFILTER_DROP" {
			d.Description = dropreason.Of("", d.Where).Description
		}
		d.Reason = ""
	}
	ex.Milestones.Query.Read, ex.Milestones.Response.Read = trace.NotObservable, trace.NotObservable
	if !ex.Milestones.Response.Left.Seen() {
		ex.Server = nil
	}
	return true
}

// casesOf returns the recorded cases in which each code is found, of what keep leaves.
func casesOf(t *testing.T, keep func(trace.Record) bool) map[string][]string {
	t.Helper()
	cases := map[string][]string{}
	for _, path := range recordedCases(t) {
		a := assemble.New(assemble.Config{})
		for _, r := range readCase(t, path) {
			if keep(r) {
				a.Add(r)
			}
		}
		for _, f := range findings(a.Flush()) {
			if name := caseName(path); !slices.Contains(cases[f.Code], name) {
				cases[f.Code] = append(cases[f.Code], name)
			}
		}
	}
	return cases
}

// The page has each code once, with the recorded case that looks like it and is none, and
// says of each with which half of the two, and on which kernels, it can be said: as the
// recorded cases show.
func TestFindingsPage(t *testing.T) {
	rows := pageRows(t)
	if got, want := slices.Sorted(maps.Keys(rows)), slices.Sorted(slices.Values(diagnose.Codes)); !slices.Equal(got, want) {
		t.Fatalf("%s has rows of\n%v, the codes are\n%v", findingsPage, got, want)
	}
	all := casesOf(t, func(trace.Record) bool { return true })
	packets, records, old := casesOf(t, onlyPackets), casesOf(t, onlyRecords), casesOf(t, asLinux510)
	for _, code := range diagnose.Codes {
		row := rows[code]
		if row.says == "" || row.proof == "" || !strings.Contains(row.not, "`"+nearMisses[code]+"`") {
			t.Errorf("%s: says %q, proof %q, and %q does not name the near miss %q", code, row.says, row.proof, row.not, nearMisses[code])
		}
		halves := "both together"
		switch alone, withRecords := len(packets[code]) > 0, len(records[code]) > 0; {
		case alone && withRecords:
			halves = "either"
		case alone:
			halves = "tracer"
		case withRecords:
			halves = "plugin"
		}
		if row.halves != halves {
			t.Errorf("%s: %q, and the recorded cases show: %s", code, row.halves, halves)
		}
		kernels := "all"
		switch lost := slices.DeleteFunc(slices.Clone(all[code]), func(c string) bool { return slices.Contains(old[code], c) }); {
		case len(old[code]) == 0:
			kernels = "later"
		case len(lost) > 0:
			kernels = "all; later, more"
		}
		if got, _, _ := strings.Cut(row.kernels, " ("); got != kernels {
			t.Errorf("%s: on %q, and as on Linux 5.10 it is found in %v of %v: %s", code, row.kernels, old[code], all[code], kernels)
		}
	}
}
