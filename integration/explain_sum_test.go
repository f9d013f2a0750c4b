package integration

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

var (
	drawnTrace   = regexp.MustCompile(`(?m)^ trace +([0-9a-f]{32})$`)
	drawnSection = regexp.MustCompile(`(?m)^ (?:QUERY|COREDNS|SERVER|RESPONSE)\b.* ([0-9.]+) (ns|µs|ms|s)$`)
	drawnPart    = regexp.MustCompile(`(?m)^  (?:[a-z]+|CoreDNS)\b.* ([0-9.]+) (ns|µs|ms|s)$`)
	// What the response waits for the client to read it is behind what the client waited for.
	drawnUnread = regexp.MustCompile(`(?m)^  client +in the socket's queue\b.*$`)
)

// The sections that explain draws of a lookup, the way there, the server and the way
// back, add up to what the client waited, within 1 %; so do the parts that these
// consist of, device by device and plugin by plugin, of 99 lookups in a hundred. A
// thousand lookups, of which every other is answered from the cache.
func TestExplainedPartsAddUp(t *testing.T) {
	const lookups = 1000
	r := newRig(t, "--record", "trace")
	results := r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: lookups, Rate: 200, Query: func(i int) lab.Query {
		return lab.Query{Name: fmt.Sprintf("n%d.sum.test.", i/2)}
	}})
	for _, res := range results {
		if res.Err != nil {
			t.Fatalf("%s: %v", res.Name, res.Err)
		}
	}
	waited := map[string]time.Duration{}
	for end := time.Now().Add(patience); len(waited) < lookups; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d traces of %d lookups\n%s", len(waited), lookups, r.Outputs())
		}
		eachTrace(t, r.RecordFile(), func(tr *trace.Trace) {
			if strings.HasSuffix(tr.QName, ".sum.test.") && tr.Exchange != nil && tr.Duration != nil {
				waited[tr.TraceID.String()] = tr.Duration.Duration()
			}
		})
	}
	text, err := r.Dnstrace(t.Context(), "explain", "--all", "--full", "--from", r.RecordFile(), "*.sum.test")
	if err != nil {
		t.Fatal(err)
	}
	drawings := strings.Split(text, "\n WHERE ")
	checked, inside, apart := 0, 0, 0
	for i := range drawings[1:] {
		id := drawnTrace.FindAllStringSubmatch(drawings[i], -1)
		if len(id) == 0 {
			t.Fatalf("no trace id above a drawing:\n%s", drawings[i])
		}
		total, known := waited[id[len(id)-1][1]]
		if !known {
			continue // half of a lookup whose packets were lost
		}
		drawing, _, _ := strings.Cut(drawings[i+1], "\n ▸ query ")
		if sum, n := sumOf(t, drawing, drawnSection); n != 3 || (sum-total).Abs() > total/100 {
			t.Errorf("%d sections add up to %s, the client waited %s:\n%s", n, sum, total, drawing)
		}
		checked++
		// On a busy machine a record of CoreDNS's may be late: then it is the SERVER.
		if !strings.Contains(drawing, "\n COREDNS") {
			continue
		}
		inside++
		if sum, n := sumOf(t, drawnUnread.ReplaceAllString(drawing, ""), drawnPart); n < 5 || (sum-total).Abs() > total/100 {
			t.Logf("%d parts add up to %s, the client waited %s:\n%s", n, sum, total, drawing)
			apart++
		}
	}
	// CoreDNS may be interrupted between two of its plugins.
	if apart > lookups/100 {
		t.Errorf("the parts of %d lookups do not add up", apart)
	}
	if checked != lookups || inside < lookups/2 {
		t.Errorf("%d drawings of %d lookups, %d with CoreDNS's own record", checked, lookups, inside)
	}
}

// sumOf adds up the times in the last column of the matching rows.
func sumOf(t *testing.T, drawing string, rows *regexp.Regexp) (sum time.Duration, n int) {
	t.Helper()
	for _, m := range rows.FindAllStringSubmatch(drawing, -1) {
		value, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		unit, err := time.ParseDuration(fmt.Sprint("1", m[2]))
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(value * float64(unit))
		n++
	}
	return sum, n
}
