package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/top"
)

// sampleView is made of the sample lookups, and of a cluster's worth of clients.
func sampleView(clients int) top.View {
	sums := top.New(top.Config{Window: time.Minute})
	for i, s := range waterfalls {
		t := s.trace()
		t.Time = sampleTime.Add(time.Duration(i) * time.Second)
		sums.Add(t)
	}
	for i := range clients {
		t := hitTrace()
		t.Time = sampleTime.Add(time.Duration(i) * 10 * time.Millisecond)
		t.Client = &trace.Endpoint{Namespace: "shop", Pod: fmt.Sprintf("checkoutservice-6c8f5b6d9f-%05d", i*7919%100000)}
		t.Duration = trace.SecondsPtr(time.Duration(i+1) * 37 * time.Microsecond)
		sums.Add(t)
	}
	return sums.View(sampleTime.Add(40 * time.Second))
}

func drawTop(t testing.TB, v top.View, o TopOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Top(&b, &v, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTop(t *testing.T) {
	for _, tc := range []struct {
		name    string
		clients int
		options TopOptions
	}{
		{"80", 12, TopOptions{Options: Options{Width: 80}, Sort: top.ByTimeouts}},
		{"140", 12, TopOptions{Options: Options{Width: 140}, Sort: top.ByP99, Description: "the tracer at /run/dnstrace/api.sock"}},
		{"pipe", 3, TopOptions{Sort: top.ByName, Reverse: true}},
		{"color", 3, TopOptions{Options: Options{Width: 100, Color: true}, Sort: top.ByVolume}},
		{"short", 40, TopOptions{Options: Options{Width: 80}, Sort: top.ByMax, Height: 24}},
	} {
		golden(t, "testdata/top."+tc.name+".txt", []byte(drawTop(t, sampleView(tc.clients), tc.options)))
	}
}

func TestTopFits(t *testing.T) {
	v := sampleView(50)
	v.Late, v.Total.Sampled = 3, 4
	for width := 1; width < 200; width += 7 {
		o := TopOptions{Options: Options{Width: width}, Height: 20}
		text := drawTop(t, v, o)
		checkDrawing(t, "top", text, max(width, MinWidth))
		if n := strings.Count(text, "\n"); n > 20 {
			t.Errorf("%d columns: %d lines", width, n)
		}
	}
}

func TestTopWithoutLookups(t *testing.T) {
	v := top.New(top.Config{Window: time.Minute}).View(sampleTime)
	if got, want := drawTop(t, v, TopOptions{}), "0 lookups · 0 timeouts · 0 with a diagnosis · by timeouts\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 9999999: "9999999", 12345678: "12.3M", 1 << 40: "1099.5G"} {
		if got := count(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for r, want := range map[float64]string{0: "0", 0.001: "<0.01", 0.5: "0.50", 9.996: "10.0", 1234.5: "1234"} {
		if got := perSecond(r); got != want {
			t.Errorf("%v: %s, want %s", r, got, want)
		}
	}
}
