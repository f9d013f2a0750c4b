//go:build cilium

package cilium

import (
	"slices"

	"github.com/dnstrace/dnstrace/integration/kubernetes/kubenode"
	"github.com/dnstrace/dnstrace/trace"
)

// Where lookups go.
const (
	service        = kubenode.DNS + ":53"
	guardedIP      = "10.96.0.80"
	guardedService = guardedIP + ":53"
	outside        = kubenode.Outside + ":53"
	silent         = "172.31.255.54:53"
)

// serviceIPs are the addresses of Services.
var serviceIPs = []string{kubenode.DNS, guardedIP}

// What a client can get beside the code of a response and its addresses.
const (
	silence = "silence"
	refused = "an error of its socket"
)

// answer is the address that the resolver outside gives for a name below example.org.
const answer = "NOERROR 192.0.2.80"

// lookup is a row of the table: what is asked, and what must be said of it. Whatever it
// is, there is one trace, the client is named, and no finding but those listed.
type lookup struct {
	name    string // unique, so that it tells the lookup by its question
	pod     string // that asks
	network string // udp if empty
	server  string // the Service kube-dns if empty
	names   bool   // only where names are the policy's

	result string // what the client gets
	want   want
}

// want is what must be said of a lookup.
type want struct {
	outcomes []string // one of them
	service  string   // namespace/name; empty: a server that is none's
	// pod is the start of the server's pod's name; empty: the server is no pod, or which
	// one it would have been is not known.
	pod       string
	recorded  bool          // CoreDNS got it
	answerer  string        // the plugin that answered; empty: none did
	cache     string        // what the cache said; empty: not asked here
	upstreams []wantAttempt // each of those, at least once, and no others
	// findings must be there, one of each list; may can.
	findings [][]string
	may      []string
	says     string // in the summary of one of them
	never    string // in nothing that is said of it
	untraced bool   // no packet of it exists
	connects bool   // its connection is not opened: the trace is of the attempt, which has no name
}

// wantAttempt is an attempt of CoreDNS with the packets of it.
type wantAttempt struct{ address, outcome string }

// What became of a lookup: a query that is turned away is dropped only where that is seen.
var (
	answered   = []string{trace.OutcomeAnswered}
	unanswered = []string{trace.OutcomeUnanswered}
	dropped    = []string{trace.OutcomeDropped}
	turnedAway = []string{trace.OutcomeUnanswered, trace.OutcomeDropped}
)

var (
	healthy = want{outcomes: answered, service: "kube-system/kube-dns", pod: "coredns-", recorded: true, answerer: "forward",
		upstreams: []wantAttempt{{outside, trace.OutcomeOK}}}
	// An upstream that is silent again and again may be told as that.
	unhealthy = []string{"upstream-unhealthy"}
)

// with changes a want.
func (w want) with(change func(*want)) want {
	w.upstreams = slices.Clone(w.upstreams)
	change(&w)
	return w
}

// lookups are made at once, while all works.
var lookups = []lookup{
	{name: "guarded.demo.svc.cluster.local.", pod: "client", result: "NOERROR 10.96.0.80",
		want: healthy.with(func(w *want) { w.answerer, w.upstreams = "kubernetes", nil })},
	{name: "miss.example.org.", pod: "client", result: answer, want: healthy.with(func(w *want) { w.cache = trace.CacheMiss })},
	{name: "hit.example.org.", pod: "client", result: answer,
		want: healthy.with(func(w *want) { w.answerer, w.cache, w.upstreams = "cache", trace.CacheHit, nil })},
	{name: "missing.example.net.", pod: "client", result: "NXDOMAIN", want: healthy},
	{name: "tcp.example.org.", network: "tcp", pod: "client", result: answer, want: healthy},
	{name: "late.slow.test.", pod: "client", result: "NOERROR 192.0.2.53",
		want: healthy.with(func(w *want) { w.findings = [][]string{{"slow-upstream"}} })},
	{name: "bad.fail.test.", pod: "client", result: "SERVFAIL",
		want: healthy.with(func(w *want) { w.findings = [][]string{{"upstream-error"}} })},
	{name: "never.silent.test.", pod: "client", result: "SERVFAIL",
		want: healthy.with(func(w *want) {
			w.answerer, w.upstreams = "", []wantAttempt{{outside, trace.OutcomeTimeout}}
			w.findings, w.may = [][]string{{"upstream-timeout"}}, unhealthy
		})},
	{name: "second.failover.test.", pod: "client", result: answer,
		want: healthy.with(func(w *want) {
			w.upstreams = []wantAttempt{{silent, trace.OutcomeTimeout}, {outside, trace.OutcomeOK}}
			w.findings, w.may = [][]string{{"upstream-timeout"}}, unhealthy
		})},
	{name: "host.example.org.", pod: "agent", result: answer, want: healthy},
	{name: "hosttcp.example.org.", network: "tcp", pod: "agent", result: answer, want: healthy},
	{name: "direct.example.org.", pod: "client", server: outside, result: answer, want: want{outcomes: answered}},
	{name: "directtcp.example.org.", network: "tcp", pod: "client", server: outside, result: answer, want: want{outcomes: answered}},
	// A policy's drop, at the client and at the server.
	{name: "egress.example.org.", pod: "denied", result: silence,
		want: want{outcomes: dropped, service: "kube-system/kube-dns", findings: [][]string{{"dropped-by-bpf"}}}},
	{name: "ingress.example.org.", pod: "client", server: guardedService, result: silence,
		want: want{outcomes: dropped, service: "demo/guarded", findings: [][]string{{"dropped-by-bpf"}}}},
	{name: "egresstcp.example.org.", network: "tcp", pod: "denied", result: silence,
		want: want{outcomes: dropped, service: "kube-system/kube-dns", findings: [][]string{{"dropped-by-bpf"}}, connects: true}},
	{name: "ingresstcp.example.org.", network: "tcp", pod: "client", server: guardedService, result: silence,
		want: want{outcomes: dropped, service: "demo/guarded", findings: [][]string{{"dropped-by-bpf"}}, connects: true}},
	// The agent refuses the name: CoreDNS never heard of it, and did not refuse it.
	{name: "forbidden.example.com.", pod: "client", result: "REFUSED", names: true,
		want: want{outcomes: answered, service: "kube-system/kube-dns", findings: [][]string{{"refused-by-server"}}}},
}

// stopped are made while the processes of CoreDNS are stopped: queries are delivered, and
// never read. The processes are killed later, and what they did not read goes with them.
// To the agent's proxy CoreDNS is an upstream.
var stopped = []lookup{
	{name: "stopped.example.org.", pod: "client", result: silence, want: hung},
	{name: "stoppedtcp.example.org.", network: "tcp", pod: "client", result: silence, want: hung},
	{name: "hoststopped.example.org.", pod: "agent", result: silence, want: hung},
}

var hung = want{outcomes: turnedAway, service: "kube-system/kube-dns", pod: "coredns-", findings: [][]string{{"no-response-seen", "server-overloaded", "dropped-other", "upstream-timeout"}}}

// absent are made while the Service has no endpoint.
func absent(v variant) []lookup {
	w := map[refusal]want{
		inConnect: {untraced: true},
		// The program makes the ICMP error out of the query itself: nothing is freed.
		atVeth: {outcomes: unanswered, service: "kube-system/kube-dns", says: "no ready endpoint: an eBPF program", never: "kube-proxy",
			findings: [][]string{{"dropped-by-bpf"}}},
		inNetfilter: {outcomes: turnedAway, service: "kube-system/kube-dns", says: "no ready endpoint", never: "eBPF", findings: [][]string{{"dropped-by-netfilter"}}},
	}
	host := inConnect // socket load balancing is for the node's own namespace at least
	if v.proxyMode != "" {
		host = inNetfilter
	}
	connects := func(w *want) { w.connects = true }
	return []lookup{
		{name: "absent.example.org.", pod: "client", result: refused, want: w[v.refusal]},
		{name: "absenttcp.example.org.", network: "tcp", pod: "client", result: refused, want: w[v.refusal].with(connects)},
		{name: "hostabsent.example.org.", pod: "agent", result: refused, want: w[host]},
	}
}

// last is made after all others: once it is told, they are.
var last = lookup{name: "last.example.org.", pod: "client", server: silent, result: silence,
	want: want{outcomes: unanswered, findings: [][]string{{"no-response-seen", "server-overloaded"}}}}
