package figures

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPage(t *testing.T) {
	var all Figures
	for i, v := range []float64{3, 1, 2} {
		all.Add("CPU", "dnstrace", "µs", v, AtMost(2))
		all.Add("lost", "dnstrace", "packets", float64(i%2), Never())
		all.Add("CPU", "off", "µs", 0.5, AtLeast(1))
		all.Add("lost", "off", "packets", 0, Goal{})
	}
	path := filepath.Join(t.TempDir(), "results")
	p := Part{Machine: Machine{Time: time.Unix(0, 0).UTC(), Version: "v1", Kernel: "6.12.0", Arch: "amd64", CPUs: 2, Load: 0.25},
		Command: "make one", Title: "One", Figures: all.Sorted([]string{"off", "dnstrace"})}
	older := p
	older.Figures = older.Figures[:1]
	for _, part := range []Part{older, {Title: "Two", Figures: p.Figures[:1]}, p} {
		if err := part.Append(path); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := Read(f)
	if err != nil || len(parts) != 2 || parts[1].Title != "Two" {
		t.Fatalf("%+v, %v", parts, err)
	}
	var page strings.Builder
	if err := parts[0].Markdown(&page); err != nil {
		t.Fatal(err)
	}
	want := `
## One

` + "`make one`" + `

1970-01-01T00:00:00Z · v1 · Linux 6.12.0 amd64 · 2 CPUs · load before 0.25

| | | min – median – max, rounds: 3 | unit | goal |
|---|---|---|---|---|
| CPU | off | 0.500 – 0.500 – 0.500 | µs | ≥ 1.00 missed |
|  | dnstrace | 1.00 – 2.00 – 3.00 | µs | ≤ 2.00 reached |
| lost | off | 0 – 0 – 0 | packets |  |
|  | dnstrace | 0 – 0 – 1.00 | packets | ≤ 0 missed |
`
	if page.String() != want {
		t.Errorf("got\n%s\nwant\n%s", page.String(), want)
	}
}

func TestReadBroken(t *testing.T) {
	if _, err := Read(strings.NewReader("{}\nnonsense\n")); err == nil {
		t.Error("no error")
	}
}
