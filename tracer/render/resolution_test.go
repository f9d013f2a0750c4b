package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// searchCall is what a program with a search path asks: the suffixes first.
func searchCall() []*trace.Trace {
	var lookups []*trace.Trace
	for i, name := range []string{"example.com.demo.svc.cluster.local.", "example.com.svc.cluster.local.", "example.com."} {
		for j, qtype := range []string{"A", "AAAA"} {
			t := hitTrace()
			t.QName, t.QType, t.Resolution = name, qtype, "6b010a0041156cb9"
			t.Time = sampleTime.Add(us(2000*i + 40*j))
			t.Exchange.Time, t.Query.Time = t.Time, t.Time.Add(us(120))
			if i < 2 {
				t.RCode = "NXDOMAIN"
			}
			lookups = append(lookups, t)
		}
	}
	lookups[5].Diagnosis = []trace.Finding{{Code: "search-path-amplification", Summary: "One name cost 6 lookups.", Advice: "End the name with a dot."}}
	return lookups
}

func drawResolution(t testing.TB, lookups, drawn []*trace.Trace, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Resolution(&b, lookups, drawn, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestResolution(t *testing.T) {
	lookups := searchCall()
	// The order in which they come does not matter.
	lookups[0], lookups[5] = lookups[5], lookups[0]
	golden(t, "testdata/resolution.80.txt", []byte(drawResolution(t, lookups, lookups, Options{})))
	golden(t, "testdata/resolution.color.txt", []byte(drawResolution(t, lookups[:2], lookups[:2], Options{Width: 100, Color: true})))
	golden(t, "testdata/resolution-one.80.txt", []byte(drawResolution(t, lookups, lookups[3:4], Options{})))
	lookups[0].Duration = nil
	for width := 1; width < 170; width += 13 {
		o := Options{Width: width}
		checkDrawing(t, "resolution", drawResolution(t, lookups, lookups, o), o.width())
	}
	if d, ok := callTime(searchCall()); !ok || d != 4040*time.Microsecond+203*time.Microsecond {
		t.Errorf("%v, %v", d, ok)
	}
}

// Of a call of many lookups those are listed that failed or have a finding, and the first.
func TestResolutionOfMany(t *testing.T) {
	var lookups []*trace.Trace
	for i := range 100 {
		l := hitTrace()
		l.QName, l.Resolution, l.Time = fmt.Sprintf("n%d.test.", i), "6b010a0041156cb9", sampleTime.Add(us(100*i))
		lookups = append(lookups, l)
	}
	lookups[80].RCode = "SERVFAIL"
	lookups[90].Diagnosis = []trace.Finding{{Code: "server-slow", Summary: "It was slow."}}
	text := drawResolution(t, lookups, lookups[95:96], Options{})
	for _, want := range []string{" n80.test. ", " n90.test. ", " n95.test. ", " n0.test. ", "and 76 lookups more", "--full draws 99 more"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
	if n := strings.Count(text, ".test.  "); n > mostListed+2 {
		t.Errorf("%d are listed:\n%s", n, text)
	}
}
