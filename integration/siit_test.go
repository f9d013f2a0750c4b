package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// siit, which is new in CoreDNS 1.15, makes an A record of the AAAA record that
// it asks for through the server: one record, with the hop of what siit calls
// directly and the nested lookup as its children.
func TestSIIT(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	file := filepath.Join(r.Dir(), "queries.jsonl")
	server, err := r.StartCoreDNS(fmt.Sprintf(`. {
    dnstrace {
        output file %s
    }
    siit {
        eam 198.51.100.7 %s
    }
    cache
    template IN A siit.test {
        rcode NOERROR
    }
    forward . %s
}
`, file, lab.AddrAAAA("a.siit.test."), r.Upstream(0).V4()))
	if err != nil {
		t.Fatal(err)
	}
	up := "1 ok " + r.Upstream(0).V4().String()
	const nested = "siit cache<siit template<cache dnstrace<siit siit<dnstrace cache<siit"
	cases := []struct {
		name, want, cache, hops, attempts string
	}{
		{"a.siit.test.", "198.51.100.7", trace.CacheMiss, nested + " template<cache forward<template", up},
		{"plain.test.", lab.AddrA("plain.test.").String(), trace.CacheMiss, "siit cache<siit template<cache forward<template", up},
		{"plain.test.", lab.AddrA("plain.test.").String(), trace.CacheHit, "siit cache<siit", ""},
	}
	for _, tc := range cases {
		res := r.answered(lab.Query{Name: tc.name})
		if len(res.Answer.Answer) != 1 {
			t.Fatalf("%s: the answer is\n%s", tc.name, res.Answer)
		}
		if a, ok := res.Answer.Answer[0].(*dns.A); !ok || a.A.String() != tc.want {
			t.Errorf("%s: the answer is %s, expected %s", tc.name, res.Answer.Answer[0], tc.want)
		}
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	records := readRecords(t, file)
	if len(records) != len(cases) {
		t.Fatalf("%d records of %d lookups", len(records), len(cases))
	}
	slices.SortFunc(records, func(a, b trace.Record) int { return a.Head().Time.Compare(b.Head().Time) })
	for i, tc := range cases {
		q, ok := records[i].(*trace.Query)
		if !ok || q.QName != tc.name || q.QType != "A" || q.RCode != "NOERROR" {
			t.Fatalf("%s: record %+v", tc.name, records[i])
		}
		if got := hops(q.Hops); got != tc.hops || q.Cache != tc.cache {
			t.Errorf("%s: cache %s, hops %s", tc.name, q.Cache, got)
		}
		if got := attempts(q.Upstreams); got != tc.attempts {
			t.Errorf("%s: attempts %s", tc.name, got)
		}
	}
}

// hops returns the hops as "plugin<parent", in order.
func hops(list []trace.Hop) string {
	var names []string
	for _, h := range list {
		name := h.Plugin
		if h.Parent != nil {
			name += "<" + list[*h.Parent].Plugin
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// attempts returns the attempts as "number outcome address".
func attempts(list []trace.Attempt) string {
	var all []string
	for _, a := range list {
		all = append(all, fmt.Sprintf("%d %s %s", a.Attempt, a.Outcome, a.Address))
	}
	return strings.Join(all, ", ")
}
