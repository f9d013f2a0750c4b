package integration

import (
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// withEDNS is a query that can take large answers and extended errors.
func withEDNS(name string) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(4096, true)
}

// What a response says is in its exchange: aliases, addresses, flags and the
// server's own words for an error.
func TestExchangeTellsWhatTheResponseSays(t *testing.T) {
	r := tracerOnly(t)
	server, err := r.StartCoreDNS(`. {
    template IN A alias.test {
        answer "{{ .Name }} 30 IN CNAME target.test."
        answer "target.test. 5 IN A 192.0.2.7"
    }
    template IN A blocked.test {
        rcode NXDOMAIN
        ederror 15 "blocked by a test"
    }
}`)
	if err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Message: withEDNS("www.alias.test.")})
	ex := r.trace("www.alias.test.").Exchange
	want := []trace.Answer{{Type: "CNAME", Value: "target.test.", TTL: 30}, {Type: "A", Value: "192.0.2.7", TTL: 5}}
	if !slices.Equal(ex.Answers, want) || ex.AnswerCount == nil || *ex.AnswerCount != 2 || ex.MinTTL == nil || *ex.MinTTL != 5 {
		t.Errorf("answers %+v of %v, lowest TTL %v", ex.Answers, ex.AnswerCount, ex.MinTTL)
	}
	if !slices.Contains(ex.Flags, "aa") || !slices.Contains(ex.Flags, "rd") || ex.BufSize != 4096 || !ex.DNSSECOK {
		t.Errorf("flags %v, bufsize %d, DO %t", ex.Flags, ex.BufSize, ex.DNSSECOK)
	}
	if s := ex.Server; s == nil || s.Process != "coredns" || s.PID != server.Pid() {
		t.Errorf("server %+v, expected coredns with PID %d", s, server.Pid())
	}

	r.answered(lab.Query{Message: withEDNS("www.blocked.test.")})
	ex = r.trace("www.blocked.test.").Exchange
	if e := ex.ExtendedError; ex.RCode != "NXDOMAIN" || e == nil || e.Code != 15 || e.Name != "Blocked" || e.Text != "blocked by a test" {
		t.Errorf("%s, extended error %+v", ex.RCode, ex.ExtendedError)
	}
}

// Names may hold any byte; the tracer writes them as the plugin does, so that the
// two are one trace.
func TestNamesOfAnyByte(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{`a\.dot.test.`, `\000\255.test.`, `with\ blank.test.`, `"quoted\\".test.`, `*._x.test.`} {
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		r.answered(lab.Query{Message: q})
		want := q.Question[0].Name
		wire := make([]byte, 255)
		n, err := dns.PackDomainName(want, wire, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if want, _, err = dns.UnpackDomainName(wire[:n], 0); err != nil {
			t.Fatal(err)
		}
		tr := r.trace(want)
		if tr.Exchange == nil || tr.Query == nil || tr.Exchange.QName != tr.Query.QName {
			t.Errorf("%s: exchange %t, query %t", name, tr.Exchange != nil, tr.Query != nil)
		}
	}
}
