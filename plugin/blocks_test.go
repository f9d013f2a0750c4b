package dnstrace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// write makes a file for a test.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Plugins that have the answer themselves, and those before them that had not.
func TestOwnData(t *testing.T) {
	zone := write(t, "zone", zoneFile+"a 60 IN A 192.0.2.2\nalias 60 IN CNAME a\n")
	hosts := write(t, "hosts", "192.0.2.3 host.org\n")
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache 30 cached.org
		template IN TXT template.org {
			answer "{{ .Name }} 60 IN TXT text"
		}
		hosts `+hosts+` {
			fallthrough
		}
		file `+zone+` example.org
	}`)
	for n, tc := range []struct {
		name         string
		qtype        uint16
		answers      int
		rcode, by    string
		hops, result string
	}{
		{"template.org.", dns.TypeTXT, 1, "NOERROR", "template", "cache template<cache", "answered"},
		{"host.org.", dns.TypeA, 1, "NOERROR", "hosts", "cache template<cache hosts<template", "answered"},
		{"a.example.org.", dns.TypeA, 1, "NOERROR", "file", "cache template<cache hosts<template file<hosts", "answered"},
		// A target in the same zone is no lookup of its own.
		{"alias.example.org.", dns.TypeA, 2, "NOERROR", "file", "cache template<cache hosts<template file<hosts", "answered"},
		{"a.example.org.", dns.TypeTXT, 0, "NOERROR", "file", "cache template<cache hosts<template file<hosts", "answered"},
		{"no.example.org.", dns.TypeA, 0, "NXDOMAIN", "file", "cache template<cache hosts<template file<hosts", "answered"},
	} {
		answer := s.ask(tc.name, tc.qtype)
		q := s.query(n + 1)
		if len(answer.Answer) != tc.answers || q.RCode != tc.rcode || *q.ResponseSize != answer.Len() {
			t.Errorf("%s: %s with %d bytes, the answer is %s", tc.name, q.RCode, *q.ResponseSize, answer)
		}
		if q.AnsweredBy != tc.by || hops(q.Hops) != tc.hops || q.Outcome != tc.result || q.Cache != trace.CacheNone || len(q.Upstreams) != 0 {
			t.Errorf("%s: %s by %s, cache %s, hops %s", tc.name, q.Outcome, q.AnsweredBy, q.Cache, hops(q.Hops))
		}
		checkTimes(t, q)
	}
}

// Two blocks for one zone, distinguished by a view.
func TestViews(t *testing.T) {
	s := start(t, `example.org:0 {
		bind 127.0.0.1
		metadata
		view addresses {
			expr type() == 'A'
		}
		dnstrace {
			output file $RECORDS
		}
		template IN A {
			answer "{{ .Name }} 60 IN A 192.0.2.1"
		}
	}
	example.org:0 {
		bind 127.0.0.1
		metadata
		dnstrace {
			output file $RECORDS
		}
		whoami
	}`)
	for n, tc := range []struct {
		qtype    uint16
		by, hops string
	}{
		{dns.TypeA, "template", "template"}, {dns.TypeAAAA, "whoami", "whoami"},
	} {
		s.ask("www.example.org.", tc.qtype)
		q := s.query(n + 1)
		if q.AnsweredBy != tc.by || hops(q.Hops) != tc.hops || q.Zone != "example.org." {
			t.Errorf("answered by %s, hops %s, zone %s", q.AnsweredBy, hops(q.Hops), q.Zone)
		}
	}
}

// Several blocks and zones behind one address. A CNAME from one to another is
// part of the query, and so is what the other block does.
func TestBlocks(t *testing.T) {
	zone := write(t, "zone", zoneFile)
	up := upstream(t, answerA)
	s := start(t, `example.org:0 example.com:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		file `+zone+` example.org
		template IN A example.com {
			rcode NXDOMAIN
		}
	}
	sub.example.org:0 {
		bind 127.0.0.1
		whoami
	}
	example.net:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache
		forward . `+up+`
	}`)
	for n, tc := range []struct{ name, zone, rcode, hops, cache, attempts string }{
		{"www.example.org.", "example.org.", "NOERROR", "template file<template dnstrace<file cache<dnstrace forward<cache", trace.CacheNone, "1 ok " + up},
		{"www.example.com.", "example.com.", "NXDOMAIN", "template", trace.CacheNone, ""},
		{"target.example.net.", "example.net.", "NOERROR", "cache", trace.CacheHit, ""},
	} {
		s.ask("sub.example.org.", dns.TypeA) // a block without dnstrace
		s.ask(tc.name, dns.TypeA)
		q := s.query(n + 1)
		if q.Zone != tc.zone || q.RCode != tc.rcode || hops(q.Hops) != tc.hops || q.Cache != tc.cache || attempts(q.Upstreams) != tc.attempts {
			t.Errorf("%s: %s in %s, hops %s, cache %s, attempts %s", tc.name, q.RCode, q.Zone, hops(q.Hops), q.Cache, attempts(q.Upstreams))
		}
	}
	// No block is there for it: the server refuses before any plugin.
	if answer := s.ask("example.info.", dns.TypeA); answer.Rcode != dns.RcodeRefused {
		t.Errorf("the answer is %s", answer)
	}
	s.wait(3)
}

// No query is lost, or recorded twice, while CoreDNS restarts.
func TestRestartUnderTraffic(t *testing.T) {
	const corefile = `.:%s {
		bind 127.0.0.1
		reload 1h
		dnstrace {
			output file $RECORDS
		}
		cache
		forward . %s
	}`
	up := upstream(t, answerA)
	s := start(t, fmt.Sprintf(corefile, "0", up))
	_, port, _ := strings.Cut(s.addr, ":")
	var answered, asked atomic.Int64
	stop := make(chan bool)
	var clients sync.WaitGroup
	clients.Go(func() {
		c := &dns.Client{Timeout: 200 * time.Millisecond}
		for {
			select {
			case <-stop:
				return
			default:
			}
			m := new(dns.Msg).SetQuestion(fmt.Sprintf("host%d.example.org.", asked.Load()%3), dns.TypeA)
			if _, _, err := c.Exchange(m, s.addr); err == nil {
				answered.Add(1)
			}
			asked.Add(1)
		}
	})
	for range 3 {
		input := caddy.CaddyfileInput{Contents: []byte(s.expand(fmt.Sprintf(corefile, port, up))), Filepath: "Corefile", ServerTypeName: "dns"}
		instance, err := s.instance.Restart(input)
		if err != nil {
			t.Fatal(err)
		}
		s.instance = instance
		// A query may be lost in a restart, but then others must get through.
		for before := answered.Load(); answered.Load() < before+20; {
			time.Sleep(time.Millisecond)
		}
	}
	close(stop)
	clients.Wait()
	s.stop()
	// A server that is stopped before it has begun goes on answering, and its records come in batches.
	var n int64
	eventually(t, func() bool {
		n = int64(len(readRecords(t, s.records)))
		return n >= answered.Load()
	})
	if n > asked.Load() {
		t.Errorf("%d records of %d queries, %d of them answered", n, asked.Load(), answered.Load())
	}
}
