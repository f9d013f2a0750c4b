package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// At one rate the plugin and the tracer record the same lookups, though they never
// talk about it, and both record what fails.
func TestSampledAlike(t *testing.T) {
	const rate, count = 0.3, 300
	r := tracerOnly(t, "--sample", fmt.Sprint(rate))
	file := filepath.Join(r.Dir(), "plugin.json")
	plugin := fmt.Sprintf("dnstrace {\n output unix %s\n output file %s\n sample %v\n}", r.RecordSocket(), file, rate)
	if _, err := r.StartCoreDNS(corefile(r.Lab, plugin)); err != nil {
		t.Fatal(err)
	}
	for _, res := range r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: count, Rate: 200}) {
		if res.Err != nil {
			t.Fatalf("%s: %v", res.Name, res.Err)
		}
	}
	r.Upstream(0).Set("failing.test.", lab.Behaviour{Rcode: dns.RcodeServerFailure})
	r.ask(lab.Query{Name: "failing.test."})
	failed := r.trace("failing.test.")
	if failed.Sample != nil || failed.Query == nil || failed.Query.Sample != nil {
		t.Errorf("a lookup that fails: rate %v in its trace, record %+v", failed.Sample, failed.Query)
	}

	recorded := map[string]bool{} // and whether the rate is why
	for _, rec := range readRecords(t, file) {
		if q, ok := rec.(*trace.Query); ok {
			recorded[q.QName] = q.Sample != nil
		}
	}
	if n := len(recorded); n < count/5 || n > count/2 {
		t.Errorf("the plugin recorded %d of %d lookups at rate %v", n, count, rate)
	}
	traced := map[string]bool{}
	for end := time.Now().Add(patience); time.Now().Before(end) && len(traced) < len(recorded); time.Sleep(100 * time.Millisecond) {
		traced = r.tracedLookups(rate)
	}
	// On a busy machine one of the two may find slow what the other does not.
	for name, byRate := range traced {
		if _, ok := recorded[name]; byRate && !ok {
			t.Errorf("%s: the tracer has a trace, the plugin no record", name)
		}
	}
	for name, byRate := range recorded {
		if _, ok := traced[name]; byRate && !ok {
			t.Errorf("%s: the plugin has a record, the tracer no trace", name)
		}
	}
}

// The kernel decides alike: the lookups that the plugin records at the rate are seen
// whole, of others not a packet, failures among them, of which there is what
// CoreDNS says.
func TestSampledInKernel(t *testing.T) {
	const rate, count, failures = 0.3, 200, 30
	metrics := freeAddr(t)
	r := tracerOnly(t, "--sample", fmt.Sprint(rate), "--sample-in-kernel", "--metrics", metrics)
	file := filepath.Join(r.Dir(), "plugin.json")
	plugin := fmt.Sprintf("dnstrace {\n output unix %s\n output file %s\n sample %v\n}", r.RecordSocket(), file, rate)
	if _, err := r.StartCoreDNS(corefile(r.Lab, plugin)); err != nil {
		t.Fatal(err)
	}
	r.Upstream(0).Set("failing.test.", lab.Behaviour{Rcode: dns.RcodeServerFailure})
	name := func(i int) string {
		if i < failures {
			return fmt.Sprintf("n%d.failing.test.", i)
		}
		return lab.BulkName(i)
	}
	query := func(i int) lab.Query { return lab.Query{Name: name(i), Timeout: 5 * time.Second} }
	for i, res := range r.Client("client-a").Bulk(context.Background(), lab.Bulk{Count: count, Rate: 200, Query: query}) {
		if res.Err != nil {
			t.Fatalf("%s: %v", name(i), res.Err)
		}
	}
	recorded := map[string]*trace.Query{}
	for _, rec := range readRecords(t, file) {
		if q, ok := rec.(*trace.Query); ok {
			recorded[q.QName] = q
		}
	}
	traces := map[string]*trace.Trace{}
	for end := time.Now().Add(patience); time.Now().Before(end) && len(traces) < len(recorded); time.Sleep(100 * time.Millisecond) {
		for _, rec := range r.records() {
			if tr, ok := rec.(*trace.Trace); ok && recorded[tr.QName] != nil && tr.TraceID.Flow() == recorded[tr.QName].Flow {
				traces[tr.QName] = tr
			}
		}
	}
	sampled := 0
	for i := range count {
		q, tr := recorded[name(i)], traces[name(i)]
		switch {
		case q == nil && tr == nil: // not sampled, or slow for one of the two and then not compared
			continue
		case q == nil || tr == nil:
			t.Errorf("%s: record %v, trace %v", name(i), q != nil, tr != nil)
			continue
		}
		in := trace.Sampled(q.SamplingHash(), rate)
		if in != (tr.Exchange != nil) || tr.Query == nil {
			t.Errorf("%s: sampled %v, its packets seen %v, joined with its record %v", q.QName, in, tr.Exchange != nil, tr.Query != nil)
			continue
		}
		if !in {
			if !slices.ContainsFunc(tr.Gaps, func(gap string) bool { return strings.Contains(gap, "--sample-in-kernel") }) {
				t.Errorf("%s: nothing says why its packets were not seen: %q", q.QName, tr.Gaps)
			}
			continue
		}
		sampled++
		ex := tr.Exchange
		if !ex.SampledInKernel || ex.Sample == nil || *ex.Sample != rate || ex.Outcome != trace.OutcomeAnswered || ex.Incomplete() {
			t.Errorf("%s: %s", q.QName, ex.AppendJSON(nil))
		}
		// Pod, node and server, both ways, and more where a bridge still learns.
		if ex.Path.Len() < 8 {
			t.Errorf("%s: %d sightings", q.QName, ex.Path.Len())
		}
	}
	if sampled < count/6 || sampled > count/2 {
		t.Errorf("%d of %d lookups were sampled at rate %v", sampled, count, rate)
	}
	if out := metric(t, scrape(t, metrics), "dnstrace_unsampled_events_total"); out < 8*count/2 {
		t.Errorf("%v packets were left out", out)
	}
}

// tracedLookups returns the names of the clients' lookups that have a trace, and
// whether the rate is why.
func (r *rig) tracedLookups(rate float64) map[string]bool {
	r.t.Helper()
	names := map[string]bool{}
	for _, rec := range r.records() {
		tr, ok := rec.(*trace.Trace)
		if !ok || tr.Exchange == nil || tr.Exchange.Path.Len() == 0 {
			continue
		}
		// The tracer sees other labs of this machine, too.
		if tr.Exchange.Path.At(0).NetNSName != r.Host("client-a").Netns {
			continue
		}
		if tr.Sample != nil && *tr.Sample != rate {
			r.t.Fatalf("%s: rate %v", tr.QName, *tr.Sample)
		}
		names[tr.QName] = tr.Sample != nil
	}
	return names
}
