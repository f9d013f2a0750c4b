package integration

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// notWritten is what the tracer's log says of records that no output was given.
var notWritten = regexp.MustCompile(`dnstrace: (\d+) more trace records of (\S+) .*were not written`)

// A pod asks 1,300 times a second, with failures and without, several times as much as
// the tracer's memory holds: what another pod asked before stays there to be explained,
// its failures are all written, and the log says how many of the first one's were not.
func TestHostileClientDrivesOutNobody(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	tracer, err := r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--history-memory", "1MiB", "--record", "trace")...)
	if err != nil {
		t.Fatal(err)
	}
	const refusing = "template ANY ANY refused.test {\n rcode REFUSED\n}\ntemplate IN A well.test {\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}\n"
	if _, err := r.StartCoreDNS(corefile(r.Lab, toTracer(r.Lab)+"\n"+refusing)); err != nil {
		t.Fatal(err)
	}
	quiet := []string{"first.well.test.", "first.refused.test.", "between.refused.test.", "last.refused.test."}
	asked := func(name string) {
		t.Helper()
		if res := r.ask(lab.Query{Name: name}); res.Err != nil {
			t.Fatalf("%s: %v", name, res.Err)
		}
	}
	attack := func(zone string, count int) {
		t.Helper()
		results := r.Client("client-b").Bulk(context.Background(), lab.Bulk{Count: count, Rate: 1300, Query: func(i int) lab.Query {
			return lab.Query{Name: fmt.Sprintf("n%d.%s.test.", i, zone)}
		}})
		for _, res := range results {
			if res.Err != nil {
				t.Fatalf("%s: %v", res.Name, res.Err)
			}
		}
	}
	asked(quiet[0])
	asked(quiet[1])
	attack("refused", 6000)
	asked(quiet[2])
	attack("well", 6000)
	attack("refused", 6000)
	asked(quiet[3])
	r.trace(quiet[3])
	for _, name := range quiet {
		out, err := r.Dnstrace(t.Context(), "explain", "--api", r.APISocket(), name)
		if err != nil || !strings.Contains(out, name) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	_, err = r.Dnstrace(t.Context(), "explain", "--api", r.APISocket(), "n1.refused.test.")
	if client := r.Host("client-b").V4.String(); err == nil || !strings.Contains(err.Error(), "of clients that ask more than others, less") || !strings.Contains(err.Error(), client) {
		t.Errorf("of the noisy one everything is held, or nobody says so: %v", err)
	}
	if err := tracer.Stop(); err != nil {
		t.Fatal(err)
	}
	written := map[string]int{}
	eachTrace(t, r.RecordFile(), func(tr *trace.Trace) {
		if tr.Role == trace.RoleUpstream || tr.Replaces { // the rest of one that was written
			return
		}
		switch name := tr.QName; {
		case dns.CountLabel(name) == 3 && strings.HasPrefix(name, "n"):
			written[strings.Split(name, ".")[1]]++
		default:
			written[name]++
		}
	})
	for _, name := range quiet {
		if written[name] != 1 {
			t.Errorf("%s: %d records are written", name, written[name])
		}
	}
	left := 0
	for _, said := range notWritten.FindAllStringSubmatch(tracer.Stderr(), -1) {
		n, err := strconv.Atoi(said[1])
		if err != nil || strings.Contains(said[0], r.Host("client-a").V4.String()) {
			t.Errorf("%s: %v", said[0], err)
		}
		left += n
	}
	if written["refused"] < 1000 || written["refused"] > 2000 || written["refused"]+left < 11900 || written["well"] < 5900 {
		t.Errorf("%v are written, and the log says that %d were not:\n%s", written, left, tracer.Stderr())
	}
	t.Logf("%v are written, %d are not", written, left)
}
