package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

func tableOf(t *testing.T, o Options, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	table, err := NewTable(&b, o, names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range waterfalls {
		if err := table.Row(s.trace()); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestTable(t *testing.T) {
	for name, o := range map[string]Options{"pipe": {}, "80": {Width: 80}, "120": {Width: 120}, "200": {Width: 200}, "color": {Width: 120, Color: true}} {
		golden(t, "testdata/table."+name+".txt", []byte(tableOf(t, o)))
	}
}

func TestTableColumns(t *testing.T) {
	chosen := []string{"date", "NAME", "Upstream", "sent", "process"}
	golden(t, "testdata/table.chosen.txt", []byte(tableOf(t, Options{Width: 100}, chosen...)))
	golden(t, "testdata/table.every.txt", []byte(tableOf(t, Options{}, Columns()...)))
	if _, err := NewTable(nil, Options{}, "time", "names"); err == nil || !strings.Contains(err.Error(), `no column "names"; there are time client`) {
		t.Errorf("error %v", err)
	}
	// Whatever is chosen, nothing leaves the terminal.
	for width := 1; width < 250; width += 23 {
		checkDrawing(t, "every", tableOf(t, Options{Width: width}, Columns()...), max(width, MinWidth))
		for _, name := range Columns() {
			checkDrawing(t, name, tableOf(t, Options{Width: width}, "client", name), max(width, MinWidth))
		}
	}
}

func TestTableFits(t *testing.T) {
	for width := 1; width < 250; width += 9 {
		checkDrawing(t, "table", tableOf(t, Options{Width: width}), max(width, MinWidth))
	}
}

// Every value begins, or ends, where its head does.
func TestTableIsAligned(t *testing.T) {
	lines := strings.Split(tableOf(t, Options{Width: 200}), "\n")
	for _, name := range []string{"CLIENT", "SERVER", "NAME", "TYPE", "RESULT", "CACHE", "UPSTREAMS"} {
		at := columns(lines[0][:strings.Index(lines[0], name)])
		for _, line := range lines[1 : len(lines)-1] {
			runes := []rune(line)
			if runes[at] == ' ' || runes[at-1] != ' ' {
				if strings.Contains(line, "日") {
					continue // two columns wide: runes do not tell
				}
				t.Errorf("%s is not at column %d: %s", name, at, line)
			}
		}
	}
}

func TestTableWithoutAnything(t *testing.T) {
	var b bytes.Buffer
	table, err := NewTable(&b, Options{Width: 80})
	if err == nil {
		err = table.Row(&trace.Trace{})
	}
	if err != nil {
		t.Fatal(err)
	}
	checkDrawing(t, "empty", b.String(), 80)
}

// Attempts that failed are counted, whichever word says how; those of which nothing is
// known are not called failed.
func TestTableCountsFailedAttempts(t *testing.T) {
	for _, tc := range []struct {
		outcomes []string
		want     string
	}{
		{[]string{trace.OutcomeFailed, trace.OutcomeOK}, "2 (1 failed)"},
		{[]string{trace.OutcomeTimeout, trace.OutcomeError}, "2 (2 failed)"},
		{[]string{trace.OutcomeTimeout, trace.OutcomeOK}, "2 (1 timeout)"},
		{[]string{"", trace.OutcomeOK}, "2"},
	} {
		tr := &trace.Trace{}
		for _, outcome := range tc.outcomes {
			tr.Upstreams = append(tr.Upstreams, trace.Upstream{Attempt: &trace.Attempt{Outcome: outcome}})
		}
		if got, _ := upstreamsCell(tr); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.outcomes, got, tc.want)
		}
	}
}
