package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

func tableOf(t *testing.T, o Options) string {
	t.Helper()
	var b bytes.Buffer
	table := NewTable(&b, o)
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
	if err := NewTable(&b, Options{Width: 80}).Row(&trace.Trace{}); err != nil {
		t.Fatal(err)
	}
	checkDrawing(t, "empty", b.String(), 80)
}
