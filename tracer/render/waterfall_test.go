package render

import (
	"bytes"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

var waterfalls = []struct {
	name  string
	trace func() *trace.Trace
}{
	{"miss", missTrace}, {"hit", hitTrace}, {"failover", failoverTrace}, {"dropped", droppedTrace}, {"unanswered", unansweredTrace},
	{"response-lost", responseLostTrace}, {"plugin-only", pluginOnlyTrace}, {"tracer-only", tracerOnlyTrace},
	{"ambiguous", ambiguousTrace}, {"chain", chainTrace}, {"hostile", hostileTrace}, {"answered", answeredTrace},
	{"refused-packet", refusedPacketTrace}, {"asked-again", askedAgainTrace}, {"connect", connectTrace},
	{"refresh", refreshTrace}, {"two-nodes", twoNodesTrace},
	{"sockets", socketsTrace}, {"rejected", rejectedTrace}, {"upstream-alone", upstreamAloneTrace},
}

func draw(t testing.TB, tr *trace.Trace, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Waterfall(&b, tr, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWaterfall(t *testing.T) {
	for _, s := range waterfalls {
		for _, v := range []struct {
			suffix  string
			options Options
		}{{"80", Options{}}, {"120", Options{Width: 120}}, {"color", Options{Color: true}}} {
			golden(t, "testdata/"+s.name+"."+v.suffix+".txt", []byte(draw(t, s.trace(), v.options)))
		}
	}
}

// golden compares with a file that people read; DNSTRACE_UPDATE=1 rewrites it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if os.Getenv("DNSTRACE_UPDATE") != "" {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

func TestWaterfallFits(t *testing.T) {
	for _, s := range waterfalls {
		for width := 1; width < 170; width += 7 {
			o := Options{Width: width}
			checkDrawing(t, s.name, draw(t, s.trace(), o), o.width())
		}
	}
}

// checkDrawing checks that a drawing keeps to its width and sends nothing to
// the terminal but text.
func checkDrawing(t *testing.T, name, drawing string, width int) {
	t.Helper()
	for line := range strings.Lines(drawing) {
		line = strings.TrimSuffix(line, "\n")
		if columns(line) > width {
			t.Errorf("%s: %d columns, want at most %d: %q", name, columns(line), width, line)
		}
		if clean(line) != line || strings.TrimRight(line, " ") != line {
			t.Errorf("%s: not clean: %q", name, line)
		}
	}
}

// Colour only repeats: without the escape sequences nothing is missing.
func TestColorAddsNothing(t *testing.T) {
	for _, s := range waterfalls {
		colored := draw(t, s.trace(), Options{Color: true})
		for _, escape := range escapes {
			colored = strings.ReplaceAll(colored, escape, "")
		}
		colored = strings.ReplaceAll(colored, reset, "")
		var lines []string
		for line := range strings.Lines(colored) {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
		if got, want := strings.Join(lines, "\n")+"\n", draw(t, s.trace(), Options{}); got != want {
			t.Errorf("%s: without its colours:\n%s\nwant:\n%s", s.name, got, want)
		}
	}
}

// FuzzWaterfall draws traces whose parts do not fit each other. Changing the
// values of a real trace finds more than changing the bytes of its JSON, nearly
// all of which the decoder refuses.
func FuzzWaterfall(f *testing.F) {
	for i := range waterfalls {
		for seed := range uint64(30) {
			f.Add(i, seed, 80)
		}
	}
	f.Fuzz(func(t *testing.T, sample int, seed uint64, width int) {
		if sample < 0 {
			sample = -(sample + 1)
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		tr := waterfalls[sample%len(waterfalls)].trace()
		scramble(rng, reflect.ValueOf(tr).Elem())
		o := Options{Width: width}
		checkDrawing(t, "scrambled", draw(t, tr, o), o.width())
	})
}

// scramble changes one value in twelve.
func scramble(rng *rand.Rand, v reflect.Value) {
	hit := rng.IntN(12) == 0
	switch v.Kind() {
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			if hit {
				v.Set(reflect.ValueOf(at.Add(time.Duration(rng.Int64N(1 << 40)))))
			}
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				scramble(rng, v.Field(i))
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if hit {
			v.SetZero()
			return
		}
		scramble(rng, v.Elem())
	case reflect.Slice:
		if hit && v.Len() > 0 {
			v.SetLen(rng.IntN(v.Len()))
		}
		for i := range v.Len() {
			scramble(rng, v.Index(i))
		}
	case reflect.String:
		if hit {
			v.SetString([]string{"", trace.MessageResponse, "tx", "日本\x1b[", strings.Repeat("long.", 60)}[rng.IntN(5)])
		}
	case reflect.Int, reflect.Int64:
		if hit {
			v.SetInt([]int64{0, -1, 3, rng.Int64(), -rng.Int64()}[rng.IntN(5)])
		}
	case reflect.Uint16, reflect.Uint32:
		if hit {
			v.SetUint(uint64(rng.Uint32() & 0xffff))
		}
	}
}

// An upstream that answers that it failed is drawn as one that did.
func TestAnErrorOfAnUpstreamIsNamed(t *testing.T) {
	tr := missTrace()
	tr.Upstreams[0].Exchange.RCode = "SERVFAIL"
	if text := draw(t, tr, Options{}); !strings.Contains(text, "  UPSTREAM 1 SERVFAIL ") {
		t.Error(text)
	}
	tr.Upstreams[0].Exchange.RCode = "NXDOMAIN"
	if text := draw(t, tr, Options{}); !strings.Contains(text, "  UPSTREAM 1 192.168.49.1:53 ok ") {
		t.Error(text)
	}
}

// Where no connection to an upstream was opened, no query was sent, with any ID.
func TestUpstreamWithoutAConnection(t *testing.T) {
	for _, join := range []string{trace.JoinExact, trace.JoinInferred} {
		tr := failoverTrace()
		u := &tr.Upstreams[0]
		u.Join, u.Exchange.Protocol, u.Exchange.QName, u.Exchange.QType, u.Exchange.ID = join, "tcp", "", "", 0
		if got := draw(t, tr, Options{}); strings.Contains(got, "0x0000") || !strings.Contains(got, "tcp, no connection") {
			t.Errorf("%s:\n%s", join, got)
		}
	}
}
