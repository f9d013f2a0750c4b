package dnstrace

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// The record is about the question as the client asked it, and the answer as it
// was sent.
func TestRewrite(t *testing.T) {
	const a = "template IN A {\n answer \"{{ .Name }} 60 IN A 192.0.2.7\"\n }\n"
	const aaaa = "template IN AAAA {\n answer \"{{ .Name }} 60 IN AAAA 2001:db8::7\"\n }\n"
	const cname = "template IN A old.org {\n answer \"{{ .Name }} 60 IN CNAME target.org.\"\n }\n"
	for _, tc := range []struct{ rule, plugins, hops string }{
		{"name old.org new.org", a, "rewrite template<rewrite"},
		{"name suffix .org .net answer auto", a, "rewrite template<rewrite"},
		{"type A AAAA", aaaa, "rewrite template<rewrite"},
		{"edns0 local set 0xffee 0x61626364", a, "rewrite template<rewrite"},
		{"edns0 nsid set", a, "rewrite template<rewrite"},
		{"cname exact target.org. other.org.", cname + "forward . " + upstream(t, answerA),
			"rewrite template<rewrite dnstrace<template rewrite<dnstrace template<rewrite forward<template " +
				"dnstrace<rewrite rewrite<dnstrace template<rewrite forward<template"},
	} {
		s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n rewrite "+tc.rule+"\n"+tc.plugins+"\n}")
		m := new(dns.Msg).SetQuestion("old.org.", dns.TypeA)
		answer := s.exchange("udp", m)
		q := s.query(1)
		if q.QName != "old.org." || q.QType != "A" || q.ID != m.Id || q.RequestSize != m.Len() || q.BufSize != 512 || q.DNSSECOK {
			t.Errorf("%s: %+v", tc.rule, q.DNS)
		}
		if got := hops(q.Hops); got != tc.hops || q.RCode != "NOERROR" || *q.ResponseSize != answer.Len() || q.Outcome != trace.OutcomeAnswered {
			t.Errorf("%s: hops %s, %s with %d bytes, the answer has %d", tc.rule, got, q.RCode, *q.ResponseSize, answer.Len())
		}
	}
}

// Where the plugins after it fail, rewrite writes the answer that the server
// would have written.
func TestRewriteOfFailure(t *testing.T) {
	down := refusing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		rewrite name old.org new.org
		forward . `+down+` {
			max_connect_attempts 2
		}
	}`)
	s.ask("old.org.", dns.TypeA)
	q := s.query(1)
	if q.RCode != "SERVFAIL" || q.Outcome != trace.OutcomeError || q.Error == "" || q.AnsweredBy != "rewrite" {
		t.Errorf("%s %s by %s: %q", q.RCode, q.Outcome, q.AnsweredBy, q.Error)
	}
	if got := attempts(q.Upstreams); got != "1 error "+down+", 2 error "+down || q.Upstreams[1].Error != q.Error {
		t.Errorf("attempts: %s: %+v", got, q.Upstreams)
	}
}

// dns64 asks for AAAA, and where there is none for A, through the server.
func TestDNS64(t *testing.T) {
	up := upstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Qtype == dns.TypeA {
			answerA(w, r)
			return
		}
		answerRcode(dns.RcodeSuccess)(w, r)
	})
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		dns64 {
			allow_ipv4
		}
		cache
		forward . `+up+`
	}`)
	const asked = "dns64 cache<dns64 forward<cache dnstrace<dns64 dns64<dnstrace cache<dns64 forward<cache"
	for n, tc := range []struct {
		qtype              uint16
		hops, cache, tries string
	}{
		{dns.TypeAAAA, asked, trace.CacheMiss, "1 ok " + up + ", 2 ok " + up},
		{dns.TypeAAAA, "dns64 cache<dns64 dnstrace<dns64 dns64<dnstrace cache<dns64", trace.CacheHit, ""},
		{dns.TypeA, "dns64 cache<dns64", trace.CacheHit, ""},
	} {
		answer := s.ask("example.org.", tc.qtype)
		q := s.query(n + 1)
		if len(answer.Answer) != 1 || q.RCode != "NOERROR" || *q.ResponseSize != answer.Len() {
			t.Errorf("the answer is %s, the record %+v", answer, q.DNS)
		}
		if got := hops(q.Hops); got != tc.hops || q.Cache != tc.cache || attempts(q.Upstreams) != tc.tries {
			t.Errorf("hops %s, cache %s, attempts %s", got, q.Cache, attempts(q.Upstreams))
		}
		if want := map[uint16]string{dns.TypeAAAA: "dns64", dns.TypeA: "cache"}[tc.qtype]; q.AnsweredBy != want {
			t.Errorf("answered by %s, want %s", q.AnsweredBy, want)
		}
		checkTimes(t, q)
	}
}

// Right before forward, dns64 calls it as directly as it calls a cache.
func TestDNS64Forward(t *testing.T) {
	up := upstream(t, answerRcode(dns.RcodeNameError))
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		dns64 {
			allow_ipv4
		}
		forward . `+up+`
	}`)
	s.ask("example.org.", dns.TypeAAAA)
	q := s.query(1)
	if hops(q.Hops) != "dns64 forward<dns64" || attempts(q.Upstreams) != "1 ok "+up || q.Upstreams[0].Plugin != "forward" {
		t.Errorf("hops %s, attempts %s", hops(q.Hops), attempts(q.Upstreams))
	}
}
