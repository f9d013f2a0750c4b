package assemble

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// ask is one lookup of a process, written short.
type ask struct {
	name, qtype string
	pid         int
	port, id    uint16        // id 0: one of its own
	start, took time.Duration // took 0: unanswered
	rcode       string        // NOERROR if empty
	tc, tcp     bool
	records     int
	server      netip.Addr // empty: the usual one
}

// noID makes the DNS ID 0.
const noID = 0xffff

func (a ask) exchange() *trace.Exchange {
	ex := fromClient(a.name, a.port, a.start, a.took)
	if ex.QType = a.qtype; a.qtype != "" {
		ex.Flow[0] ^= a.qtype[len(a.qtype)-1] + byte(len(a.qtype)) // the flow is of the question too
	}
	ex.TraceID = trace.NewTraceID(ex.Time, ex.Flow)
	ex.Truncated = a.tc
	ex.ID = uint16(ex.Flow[0])<<8 | uint16(ex.Flow[1]) | 1
	if a.id == noID {
		ex.ID = 0
	} else if a.id != 0 {
		ex.ID = a.id
	}
	ex.AnswerCount = &a.records
	if a.tcp {
		ex.Protocol = "tcp"
	}
	if a.rcode != "" {
		ex.RCode = a.rcode
	}
	if a.server.IsValid() {
		ex.ServerIP = a.server
	}
	if a.pid != 0 {
		ex.Client = &trace.Endpoint{Process: "app", PID: a.pid}
	}
	return ex
}

const ms = time.Millisecond

// search is how a resolver goes through a search list: A and AAAA of each name,
// of which all but the last do not exist.
func search(pid int, port uint16, start time.Duration, ports uint16, names ...string) []ask {
	var asks []ask
	for i, name := range names {
		rcode := "NXDOMAIN"
		if i == len(names)-1 {
			rcode = "NOERROR"
		}
		at := start + time.Duration(i)*3*ms
		asks = append(asks,
			ask{name: name, qtype: "A", pid: pid, port: port, start: at, took: ms, rcode: rcode},
			ask{name: name, qtype: "AAAA", pid: pid, port: port + ports, start: at + ms/10, took: ms, rcode: rcode})
		port += 2
	}
	return asks
}

// roundOf is A and AAAA of one name from one socket, answered within 3 ms.
func roundOf(pid int, port uint16, start time.Duration, records int, truncated bool) []ask {
	return []ask{
		{name: "a.example.", qtype: "A", pid: pid, port: port, start: start, took: 2 * ms, records: records, tc: truncated},
		{name: "a.example.", qtype: "AAAA", pid: pid, port: port, start: start + ms/10, took: 2 * ms, records: records, tc: truncated},
	}
}

// overTCPOf is a round over TCP.
func overTCPOf(pid int, port uint16, start time.Duration, records int) []ask {
	asks := roundOf(pid, port, start, records, false)
	for i := range asks {
		asks[i].tcp = true
	}
	return asks
}

var kubernetes = []string{"www.example.com.demo.svc.cluster.local.", "www.example.com.svc.cluster.local.", "www.example.com.cluster.local.", "www.example.com."}

// fourRounds is a call of glibc whose answers have 60 addresses each, as seen on a busy machine.
var fourRounds = func() (asks []ask) {
	for i, round := range [][4]struct{ start, took time.Duration }{
		{{3838, 0}, {3964, 20976}, {27026, 21449}, {27026, 28421}},
		{{55680, 976}, {55708, 781}, {56908, 2979}, {56908, 3925}},
		{{61038, 0}, {61053, 1312}, {62570, 8106}, {62570, 16490}},
		{{80045, 0}, {80077, 66401}, {146643, 6019}, {146643, 6245}},
	} {
		for j, a := range round {
			over := ask{name: "a.example.", qtype: []string{"A", "AAAA"}[j%2], pid: 7, port: uint16(1000 + 2*i + 1000*(j/2)), id: uint16(100*i + 10 + j%2),
				start: a.start * time.Microsecond, took: a.took * time.Microsecond, tcp: j > 1, tc: j < 2 && a.took > 0, records: []int{28, 60}[j/2]}
			asks = append(asks, over)
		}
	}
	return asks
}()

var callCases = []struct {
	name string
	asks []ask
	want string // a letter for each lookup: its call; '-' for none
}{
	{"A and AAAA from one socket", search(7, 1000, 0, 0, "a.example."), "aa"},
	{"A and AAAA from two sockets", search(7, 1000, 0, 1, "a.example."), "aa"},
	{"process unknown, one socket", search(0, 1000, 0, 0, "a.example."), "aa"},
	{"two sockets, a thread late", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: 30 * ms, took: 400 * ms},
	}, "aa"},
	{"answers that do not fit glibc's buffer, over TCP", append(append(roundOf(7, 1000, 0, 10, true), overTCPOf(7, 2000, 3*ms, 60)...), append(roundOf(7, 1002, 6*ms, 10, true), overTCPOf(7, 2002, 9*ms, 60)...)...), "aaaaaaaa"},
	{"answers that do not fit glibc's buffer, over UDP", append(roundOf(7, 1000, 0, 20, false), roundOf(7, 1001, 4*ms, 20, false)...), "aaaa"},
	{"once more than there are buffers", append(append(roundOf(7, 1000, 0, 20, false), roundOf(7, 1001, 4*ms, 20, false)...), roundOf(7, 1002, 8*ms, 20, false)...), "aaaabb"},
	{"answers that do not fit glibc's buffer, of which one is not waited for", append(append([]ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true, records: 10},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10},
	}, overTCPOf(7, 2000, 3*ms, 60)...), roundOf(7, 1002, 6*ms, 10, true)...), "aaaaaa"},
	{"answers that do not fit glibc's buffer, of which the first is not waited for", append(append([]ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10, took: ms, tc: true, records: 10},
	}, overTCPOf(7, 2000, 3*ms, 60)...), roundOf(7, 1002, 6*ms, 10, true)...), "aaaaaa"},
	{"answers that do not fit glibc's buffer, on a busy machine", append(roundOf(7, 1000, 0, 20, false), roundOf(7, 1001, 45*ms, 20, false)...), "aaaa"},
	{"answers that do not fit glibc's buffer, four rounds of a busy machine", fourRounds, "aaaaaaaaaaaaaaaa"},
	{"over TCP with the ID that it had, on a busy machine", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 77, took: ms, tc: true},
		{name: "a.example.", qtype: "A", pid: 7, port: 2000, id: 77, start: 80 * ms, took: ms, tcp: true},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, id: 78, start: 2000 * ms, took: ms, tc: true},
		{name: "a.example.", qtype: "A", pid: 7, port: 2001, id: 79, start: 2080 * ms, took: ms, tcp: true},
	}, "aa--"},
	{"answers that fit, asked for twice", append(roundOf(7, 1000, 0, 10, false), roundOf(7, 1001, 4*ms, 10, false)...), "aabb"},
	{"answers that do not fit, of two threads", append(append(roundOf(7, 1000, 0, 20, false), roundOf(7, 1001, 0, 20, false)...), roundOf(7, 1002, 4*ms, 20, false)...), "aabbcc"},
	{"answers that do not fit, asked for again later", append(roundOf(7, 1000, 0, 20, false), roundOf(7, 1001, 60*ms, 20, false)...), "aabb"},
	{"two calls of two sockets, a thread of each late", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 8 * ms, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: 20 * ms, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1003, start: 29 * ms, took: ms},
	}, "----"},
	{"two calls of two sockets, a thread of one late", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 15 * ms, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1003, start: 16 * ms, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: 29 * ms, took: ms},
	}, "abba"},
	{"process unknown, two sockets", search(0, 1000, 0, 1, "a.example."), "--"},
	{"single-request", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: 100 * ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: 101 * ms, took: ms},
	}, "aa"},
	{"the first nameserver fails, Go", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: 5 * ms, rcode: "SERVFAIL"},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms, took: 8 * ms, rcode: "SERVFAIL"},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 6 * ms, took: ms, server: upstreamIP},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1003, start: 11 * ms, took: ms, server: upstreamIP},
	}, "aaaa"},
	{"asked again and again of servers that fail", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "SERVFAIL"},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "SERVFAIL", server: upstreamIP},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 4 * ms, took: ms, rcode: "SERVFAIL"},
		{name: "a.example.", qtype: "A", pid: 7, port: 1003, start: 6 * ms, took: ms, rcode: "SERVFAIL", server: upstreamIP},
	}, "aabb"},
	{"asked again of the server that failed", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "SERVFAIL"},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "SERVFAIL"},
	}, "--"},
	{"search list, glibc and musl", search(7, 1000, 0, 0, kubernetes...), "aaaaaaaa"},
	{"search list, Go", search(7, 1000, 0, 1, kubernetes...), "aaaaaaaa"},
	{"search list with the node's own domain", search(7, 1000, 0, 0, append(slices.Clone(kubernetes[:3]), "www.example.com.corp.test.", "www.example.com.")...), "aaaaaaaaaa"},
	{"SERVFAIL of a suffix in the middle of a search list", []ask{
		{name: "a.b.test.demo.svc.cluster.local.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.b.test.corp.test.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "SERVFAIL"},
		{name: "a.b.test.svc.cluster.local.", qtype: "A", pid: 7, port: 1002, start: 4 * ms, took: ms, rcode: "NXDOMAIN"},
		{name: "a.b.test.", qtype: "A", pid: 7, port: 1003, start: 6 * ms, took: ms},
	}, "aaaa"},
	{"SERVFAIL of a suffix ends a search list", []ask{
		{name: "a.b.test.demo.svc.cluster.local.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.b.test.corp.test.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "SERVFAIL"},
	}, "aa"},
	{"a suffix that is not of the cluster's in the middle", []ask{
		{name: "a.b.eu.corp.test.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.b.other.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "SERVFAIL"},
		{name: "a.b.corp.test.", qtype: "A", pid: 7, port: 1002, start: 4 * ms, took: ms},
	}, "aaa"},
	{"lists of addresses, one after the other", []ask{
		{name: "4.3.2.1.zen.one.test.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "4.3.2.1.bl.two.test.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, rcode: "NXDOMAIN"},
		{name: "4.3.2.1.three.test.", qtype: "A", pid: 7, port: 1002, start: 4 * ms, took: ms},
	}, "---"},
	{"the name first, then the search list", []ask{
		{name: "db.prod.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "db.prod.svc.cluster.local.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms},
	}, "aa"},
	{"two processes at once", append(search(7, 1000, 0, 0, kubernetes...), search(8, 2000, ms/5, 0, kubernetes...)...), "aaaaaaaabbbbbbbb"},
	{"two threads, A and AAAA each from one socket", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 2000, start: ms / 20, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 2000, start: ms / 5, took: ms},
	}, "abab"},
	{"two threads, each lookup from its own socket", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 2000, start: ms / 20, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 3000, start: ms / 10, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 4000, start: ms / 5, took: ms},
	}, "----"},
	{"two threads search, and one goes on", []ask{
		{name: "a.x.test.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.x.test.", qtype: "A", pid: 7, port: 2000, start: ms / 20, took: ms, rcode: "NXDOMAIN"},
		{name: "a.test.", qtype: "A", pid: 7, port: 3000, start: 2 * ms, took: ms},
	}, "---"},
	{"names that only begin alike", []ask{
		{name: "www.one.test.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "www.two.test.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms},
	}, "--"},
	{"the next name after one that exists", []ask{
		{name: "a.x.test.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.test.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms},
	}, "--"},
	{"the next name much later", []ask{
		{name: "a.x.test.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.test.", qtype: "A", pid: 7, port: 1001, start: 200 * ms, took: ms},
	}, "--"},
	{"a retry from another port", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 5 * time.Second, took: ms},
	}, "aa"},
	{"asked again though it was answered", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 5 * time.Second, took: ms},
	}, "--"},
	{"glibc: AAAA is lost, and both are sent again from their socket", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms / 10},
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, start: 5 * time.Second, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: 5*time.Second + ms/10, took: ms},
	}, "aaaa"},
	{"the same, process unknown", []ask{
		{name: "a.example.", qtype: "A", port: 1000, id: 21, took: ms},
		{name: "a.example.", qtype: "AAAA", port: 1000, id: 22, start: ms / 10},
		{name: "a.example.", qtype: "A", port: 1000, id: 21, start: 5 * time.Second, took: ms},
	}, "aaa"},
	{"the first nameserver is dead", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms / 10},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, id: 21, start: 2 * time.Second, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, id: 22, start: 2*time.Second + ms/10, took: ms},
	}, "aaaa"},
	{"it refuses at once", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms / 10},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, id: 21, start: ms, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, id: 22, start: ms + ms/10, took: ms},
	}, "aaaa"},
	{"musl: both nameservers at once, from one socket", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, start: ms / 100, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms / 10, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms/10 + ms/100, took: ms},
	}, "aaaa"},
	{"asked again with another ID though it was answered", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 23, start: 2 * time.Second, took: ms},
	}, "--"},
	{"an ID of 0 tells nothing", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: noID, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 2000, id: noID, start: sec},
		{name: "a.example.", qtype: "A", pid: 7, port: 3000, id: noID, start: 2 * sec, took: ms},
	}, "---"},
	{"truncated, then over TCP", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, tcp: true},
	}, "aa"},
	{"over UDP, then over TCP", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, tcp: true},
	}, "--"},
	{"Go: AAAA is silent", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10},
	}, "aa"},
	{"Go: AAAA is late", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10, took: 3 * time.Second},
	}, "aa"},
	{"Go: both are silent at the first server", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 5 * time.Second, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1003, start: 5*time.Second + ms/10, took: 2 * ms},
	}, "aaaa"},
	{"Go: one is silent at the first server", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 5 * time.Second, took: ms},
	}, "aaa"},
	{"Go: one is truncated, and silent over TCP", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1002, start: 2 * ms, tcp: true},
	}, "aaa"},
	{"two processes, AAAA of one is silent", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: ms / 10},
		{name: "a.example.", qtype: "A", pid: 8, port: 1002, start: ms / 20, took: ms},
	}, "aa-"},
	{"only A is asked for, and later the name again", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: 500 * ms},
	}, "--"},
	{"musl: two nameservers, one silent, and AAAA late", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 21, start: ms / 100},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms / 10, took: 700 * ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 22, start: ms/10 + ms/100},
	}, "aaaa"},
	{"glibc: truncated, and TCP is silent", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, tcp: true},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: 2*ms + ms/10, tcp: true},
	}, "aaaa"},
	{"glibc: only AAAA is truncated, and both are asked over TCP", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10, took: ms, tc: true},
		{name: "a.example.", qtype: "A", pid: 7, port: 1001, start: 2 * ms, took: ms, tcp: true},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1001, start: 2*ms + ms/10, took: 2 * ms, tcp: true},
	}, "aaaa"},
	{"truncated, and the connection does not come about", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true},
		{pid: 7, port: 1001, start: 2 * ms, tcp: true},
	}, "aa"},
	{"the same for both of one socket", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, start: ms / 10, took: ms, tc: true},
		{pid: 7, port: 1001, start: 2 * ms, tcp: true},
	}, "aaa"},
	{"two names are truncated, and one connection does not come about", []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, took: ms, tc: true},
		{name: "b.example.", qtype: "A", pid: 7, port: 1001, start: ms / 10, took: ms, tc: true},
		{pid: 7, port: 1002, start: 2 * ms, tcp: true},
	}, "---"},
	{"the last name of a search list is silent", []ask{
		{name: "a.x.test.", qtype: "A", pid: 7, port: 1000, took: ms, rcode: "NXDOMAIN"},
		{name: "a.test.", qtype: "A", pid: 7, port: 1001, start: 2 * ms},
	}, "aa"},
}

func TestCalls(t *testing.T) {
	for _, tc := range callCases {
		t.Run(tc.name, func(t *testing.T) {
			exchanges := make([]*trace.Exchange, len(tc.asks))
			for i, a := range tc.asks {
				exchanges[i] = a.exchange()
			}
			rng := rand.New(rand.NewPCG(3, 4))
			for range 10 {
				if got := callLetters(exchanges, rng.Perm(len(exchanges))); got != tc.want {
					t.Fatalf("got %s, want %s", got, tc.want)
				}
			}
		})
	}
}

// callLetters assembles exchanges in an order and names their calls in the order
// of the list: a, b, … as they come; '-' for none.
func callLetters(exchanges []*trace.Exchange, order []int) string {
	records := make([]trace.Record, len(order))
	for i, j := range order {
		records[i] = exchanges[j].Clone()
	}
	return letters(exchanges, assemble(records...))
}

// letters names the calls of exchanges as the last trace of each has it.
func letters(exchanges []*trace.Exchange, traces []*trace.Trace) string {
	calls := map[string]string{}
	for _, tr := range traces {
		calls[fmt.Sprint(tr.Exchange.Time, tr.Exchange.Flow)] = tr.Resolution
	}
	named := map[string]string{"": "-"}
	var got strings.Builder
	for _, ex := range exchanges {
		call := calls[fmt.Sprint(ex.Time, ex.Flow)]
		if named[call] == "" {
			named[call] = string(rune('a' + len(named) - 1))
		}
		got.WriteString(named[call])
	}
	return got.String()
}

// Of one socket it is proven, of two it is said to be inferred.
func TestCallsSayWhatIsInferred(t *testing.T) {
	for ports, want := range map[uint16]int{0: 0, 1: 2} {
		inferred := 0
		var records []trace.Record
		for _, a := range search(7, 1000, 0, ports, "a.example.") {
			records = append(records, a.exchange())
		}
		for _, tr := range assemble(records...) {
			for _, gap := range tr.Gaps {
				if strings.Contains(gap, "is inferred from process, names and times") {
					inferred++
				}
			}
		}
		if inferred != want {
			t.Errorf("%d sockets: %d lookups say that it is inferred, expected %d", ports+1, inferred, want)
		}
	}
}

// A call that was named keeps its name when an earlier lookup of it comes last:
// one that got no answer is only passed on after its timeout.
// The first nameserver has no link address: its queries are dropped, long after the second
// one has answered, where they had got to no device yet.
func TestCallWithQueriesThatGotNowhere(t *testing.T) {
	place := trace.Device{Node: "node-1", NetNS: 7}
	var asks []*trace.Exchange
	for i, a := range []ask{
		{name: "a.example.", qtype: "A", pid: 7, port: 2000, id: 1, start: 2 * time.Second, took: ms},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 2000, id: 2, start: 2*time.Second + ms/10, took: ms},
		{name: "a.example.", qtype: "A", pid: 7, port: 1000, id: 1},
		{name: "a.example.", qtype: "AAAA", pid: 7, port: 1000, id: 2, start: ms / 10},
	} {
		ex := a.exchange()
		ex.Path.Reset()
		ex.Milestones = trace.Milestones{}
		if i < 2 {
			ex.Path.Append(trace.Sighting{Device: place, Direction: trace.DirectionTX, Message: trace.MessageQuery})
			ex.Milestones.Query.Left = trace.MilestoneAt(0)
		} else {
			ex.Outcome = trace.OutcomeDropped
			ex.Drops = []trace.Drop{{Message: trace.MessageQuery, Reason: "NEIGH_FAILED", Node: place.Node, NetNS: place.NetNS, Offset: trace.Seconds(3 * time.Second)}}
		}
		asks = append(asks, ex)
	}
	c := newCalls()
	now := asks[0].Time
	var first trace.TraceID
	for i, ex := range asks {
		r := c.add(ex, now)
		if i == 0 {
			continue // A and AAAA are passed on once both are there
		}
		call, ok := c.of(r, ex, func(time.Time) []*trace.Exchange { return nil }, now)
		if i == 1 {
			first = call.id
		}
		if !ok || call.id != first {
			t.Errorf("lookup %d: call %s, %t, expected %s", i, call.id, ok, first)
		}
	}
}

func TestCallKeepsItsName(t *testing.T) {
	lost := ask{name: "a.example.", qtype: "A", pid: 7, port: 1000}.exchange()
	retry := search(7, 2000, time.Second, 1, "a.example.")
	a := New(Config{})
	a.Add(retry[0].exchange())
	a.Add(retry[1].exchange())
	named := a.Advance(epoch.Add(3 * time.Second))
	a.Add(lost)
	last := a.Flush()
	if len(named) != 2 || len(last) != 1 || named[0].Resolution == "" || last[0].Resolution != named[0].Resolution || named[1].Resolution != named[0].Resolution {
		t.Errorf("first %q, last %q", named[0].Resolution, last[0].Resolution)
	}
}

// What is remembered is bounded, by number and by time.
func TestCallsAreForgotten(t *testing.T) {
	c := newCalls()
	for i := range maxCalls + 100 {
		c.add(ask{name: fmt.Sprintf("n%d.example.", i), qtype: "A", pid: 7, port: 1000, took: ms}.exchange(), epoch)
	}
	if c.held != maxCalls || len(c.byCaller) > maxCalls {
		t.Errorf("%d of %d callers remembered", c.held, len(c.byCaller))
	}
	c.expire(epoch.Add(rememberCall + time.Second))
	if len(c.byCaller) != 0 || c.held != 0 || c.oldest != nil {
		t.Errorf("%d remembered for ever", len(c.byCaller))
	}
	for i := range 10 * maxAlike {
		c.add(ask{name: "hot.example.", qtype: "A", pid: 7, port: uint16(1000 + i), start: time.Duration(i) * ms, took: ms}.exchange(), epoch)
	}
	for _, r := range c.byCaller {
		if len(r.list) > maxAlike {
			t.Errorf("%d alike are compared with each other", len(r.list))
		}
	}
}
