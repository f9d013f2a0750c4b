package diagnose

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// An upstream, or a server, that answers one type of a name and mishandles another has one finding,
// with the lookup that got the error, in whatever order the two are reported.
func TestMishandledType(t *testing.T) {
	lookup := func(id byte, qtype, rcode string, upstream bool) *trace.Trace {
		records := 1
		if rcode != "NOERROR" {
			records = 0
		}
		exchange := func() *trace.Exchange {
			ex := respondedAfter(time.Millisecond, rcode)
			ex.QName, ex.QType, ex.AnswerCount, ex.ID, ex.ServerIP = "a.example.", qtype, &records, uint16(id), netip.MustParseAddr("192.0.2.10")
			ex.TraceID = trace.TraceID{1, id}
			return ex
		}
		ex := exchange()
		call := trace.TraceID{1, 1}
		tr := &trace.Trace{Header: ex.Header, QName: ex.QName, QType: qtype, RCode: rcode, Exchange: ex, Outcome: ex.Outcome, Resolution: call.String(), ResolutionJoin: trace.JoinExact}
		if upstream {
			tr.Upstreams = []trace.Upstream{attemptAt(1, trace.OutcomeOK, time.Millisecond, exchange())}
		}
		return tr
	}
	for _, qtype := range []string{"AAAA", "HTTPS", "SVCB", "TXT"} {
		for _, rcode := range []string{"NOTIMP", "SERVFAIL", "REFUSED", "FORMERR"} {
			for _, upstream := range []bool{true, false} {
				code := UpstreamError
				if !upstream && rcode != "SERVFAIL" {
					code = RefusedByServer
				}
				good, bad := lookup(1, "A", "NOERROR", upstream), lookup(2, qtype, rcode, upstream)
				d := New()
				if found := d.Trace(good); len(found) > 0 {
					t.Errorf("A: %+v", found)
				}
				found := d.Trace(bad)
				if codesOf(found) != code || !strings.Contains(found[0].Summary, "answers A of a.example. and gives "+rcode+" for "+qtype) || !strings.Contains(found[0].Advice, "`template IN "+qtype+"`") {
					t.Errorf("%s %s, upstream %t: %+v", qtype, rcode, upstream, found)
				}
				if quoted := strings.Contains(strings.Join(found[0].Evidence, " "), "musl fails"); quoted != (qtype == "AAAA") {
					t.Errorf("%s %s, upstream %t: %q", qtype, rcode, upstream, found[0].Evidence)
				}
				// Where the other is not reported yet, it is asked for.
				d = New()
				if found := d.Trace(bad); codesOf(found) != code || upstream && !strings.Contains(found[0].Advice, qtype) {
					t.Errorf("%s %s first, upstream %t: %+v", qtype, rcode, upstream, found)
				}
				if found := d.Trace(good); len(found) > 0 {
					t.Errorf("A after %s %s, upstream %t: %+v", qtype, rcode, upstream, found)
				}
			}
		}
	}
	// An UPDATE is no type.
	d := New()
	d.Trace(lookup(1, "A", "NOERROR", true))
	update := lookup(2, "SOA", "NOTIMP", true)
	update.Exchange.Opcode, update.Upstreams[0].Exchange.Opcode = 5, 5
	if found := d.Trace(update); codesOf(found) != UpstreamError || !strings.Contains(found[0].Summary, "answered NOTIMP.") || !strings.Contains(found[0].Advice, "for an UPDATE") {
		t.Errorf("UPDATE: %+v", found)
	}
	update.Upstreams, update.Exchange.TraceID = nil, trace.TraceID{1, 3}
	if found := d.Trace(update); codesOf(found) != RefusedByServer || !strings.Contains(found[0].Summary, "answered NOTIMP to UPDATE") {
		t.Errorf("UPDATE to a server: %+v", found)
	}
	// What fails all types of a name mishandles none.
	d = New()
	d.Trace(lookup(1, "A", "SERVFAIL", true))
	if found := d.Trace(lookup(2, "AAAA", "SERVFAIL", true)); codesOf(found) != UpstreamError || !strings.Contains(found[0].Summary, "answered SERVFAIL.") {
		t.Errorf("both: %+v", found)
	}
}
