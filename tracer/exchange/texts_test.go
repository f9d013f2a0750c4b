package exchange

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Of what a server writes into TXT records, options and extended errors (RFC 8914) only
// the text of the latter is recorded, quoted: nothing can be forged there.
func TestTextsOfAServerAreNotRecorded(t *testing.T) {
	const forged = "\x1b[2JFORGED\r\n{\"v\":1}"
	ex := answerTo(t, func(r *dns.Msg) {
		header := func(kind uint16) dns.RR_Header {
			return dns.RR_Header{Name: "www.example.com.", Rrtype: kind, Class: dns.ClassINET, Ttl: 60}
		}
		r.Answer = []dns.RR{&dns.TXT{Hdr: header(dns.TypeTXT), Txt: []string{forged, strings.Repeat("x", 255)}},
			&dns.HINFO{Hdr: header(dns.TypeHINFO), Cpu: forged, Os: forged}}
		r.SetEdns0(1232, false)
		r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: forged},
			&dns.EDNS0_LOCAL{Code: 65001, Data: []byte(forged)}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "464f52474544"}}
	}, whole)
	line := string(ex.AppendJSON(nil))
	if strings.Count(line, "FORGED") != 1 || strings.ContainsFunc(line, unicode.IsControl) {
		t.Errorf("%s", line)
	}
	if e := ex.ExtendedError; e == nil || e.Text != forged || e.Name != "Blocked" {
		t.Errorf("%+v", e)
	}
	if ex.RCode != "NOERROR" || len(ex.Answers) != 0 {
		t.Errorf("rcode %s, answers %v", ex.RCode, ex.Answers)
	}
}

// A name of control characters and quotes is written as zone files have it.
func TestHostileName(t *testing.T) {
	q := new(dns.Msg).SetQuestion(`\027\[2J\010\"\000\255\.x.example.com.`, dns.TypeA)
	f := newFeed(t)
	f.packet(capture.TX, podNS, 2, pod, service, pack(t, q))
	f.after(time.Minute)
	ex := f.one()
	if want := `\027[2j\010\"\000\255\.x.example.com.`; ex.QName != want {
		t.Errorf("got %s, want %s", ex.QName, want)
	}
}
