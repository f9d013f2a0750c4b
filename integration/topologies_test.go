package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Of the upstreams of a topology, the one that answers and the one that never does.
const (
	answeringUpstream = 0
	silentUpstream    = 1
)

// topologyRig is a lab of one topology, with the tracer and each CoreDNS running.
type topologyRig struct {
	*rig
	top     lab.Topology
	tracer  *lab.Process
	starved func() starvation
}

func newTopologyRig(t *testing.T, top lab.Topology) *topologyRig {
	t.Helper()
	r := &topologyRig{rig: &rig{lab.New(t, lab.Config{Topology: top}), t}, top: top, starved: watchForStarvation(t)}
	r.SilentUpstream(silentUpstream, ".")
	var err error
	if r.tracer, err = r.StartTracer(append(onlyIn(r.Lab, labHosts...), "--timeout", topologyTimeout(top))...); err != nil {
		t.Fatal(err)
	}
	for _, server := range top.Servers {
		if _, err := r.StartServer(server, r.corefile(server)); err != nil {
			t.Fatal(err)
		}
	}
	r.warmUp()
	return r
}

// topologyTimeout is the tracer's --timeout. A lookup that CoreDNS takes longer for, 4 s
// where its only upstream is silent, is one lookup all the same. In a chain the second
// server goes on after the first has given up; for its record to be waited for, the
// timeout is the default.
func topologyTimeout(top lab.Topology) string {
	if len(top.Servers) > 1 {
		return "7s"
	}
	return "3s"
}

// warmUpLabel is the first label of names whose lookups are not checked.
const warmUpLabel = "warm-up"

// warmUp makes a lookup each way, by which the tracer learns of ports behind a translation
// what a node that is at work has told it long ago.
func (r *topologyRig) warmUp() {
	for i, zone := range topologyZones {
		for _, network := range []string{"udp", "tcp"} {
			q := lab.Query{Name: warmUpLabel + "." + zone, Network: network, Server: r.top.Services[i]}
			if _, err := r.Client(r.top.Client).Exchange(r.t.Context(), q); err != nil {
				r.t.Fatalf("%s to %s: %v\n%s", q.Name, q.Server, err, r.Outputs())
			}
		}
	}
	r.await(func(all []*trace.Trace) bool {
		return slices.ContainsFunc(all, func(tr *trace.Trace) bool { return tr.Query != nil })
	})
}

// topologyZones are the zones of names that are looked up over IPv4 and over IPv6, all the way.
var topologyZones = [2]string{"v4.test.", "v6.test."}

// corefile has a server block for the names that are answered, and one for those that the
// upstream is silent for, each over IPv4 and IPv6.
func (r *topologyRig) corefile(server lab.DNSServer) string {
	var text, bind strings.Builder
	for _, addr := range server.Bind {
		fmt.Fprintf(&bind, " bind %s\n", addr)
	}
	for i, zone := range topologyZones {
		for name, upstream := range map[string]*lab.Server{zone: r.Upstream(answeringUpstream), "silent." + zone: r.Upstream(silentUpstream)} {
			to, options := [2]netip.AddrPort{upstream.V4(), upstream.V6()}[i].Addr(), ""
			if next := server.Forward[i]; next.IsValid() {
				to, options = next, "{\n  force_tcp\n }"
			}
			fmt.Fprintf(&text, "%s:%d {\n errors\n%s %s\n cache {\n  success 1000 20\n  prefetch 2 1m\n }\n forward . %s %s\n}\n",
				name, server.Port, bind.String(), toTracer(r.Lab), to, options)
		}
	}
	return text.String()
}

// A client's lookup, what is expected of it, and what became of it.
type topologyLookup struct {
	lab.Query
	check func(*topologyRig, *trace.Trace, lab.Result) []string
	then  *topologyLookup // made when this one has ended
	res   lab.Result
}

// what names a lookup in messages.
func (q *topologyLookup) what() string {
	how := q.Network
	if q.Unconnected {
		how = "unconnected " + how
	}
	return fmt.Sprintf("%s over %s to %s", q.Name, how, q.Server)
}

// lookups are a miss, a hit, one whose upstream is silent and one whose query is dropped,
// over UDP and TCP, IPv4 and IPv6.
func (r *topologyRig) lookups() []*topologyLookup {
	var all []*topologyLookup
	for i, zone := range topologyZones {
		add := func(network, name string, unconnected bool, check func(*topologyRig, *trace.Trace, lab.Result) []string) *topologyLookup {
			q := &topologyLookup{check: check, Query: lab.Query{
				Name: name, Network: network, Server: r.top.Services[i], Unconnected: unconnected, Timeout: 15 * time.Second,
			}}
			all = append(all, q)
			return q
		}
		for _, network := range []string{"udp", "tcp"} {
			add(network, network+".miss."+zone, false, (*topologyRig).isMiss).then =
				add(network, network+".miss."+zone, false, (*topologyRig).isHit)
			add(network, network+".silent."+zone, false, (*topologyRig).isSilent)
			add(network, lab.DroppedLabel+"."+network+"."+zone, false, (*topologyRig).isDropped).Timeout = 2 * time.Second
		}
		add("udp", "unconnected.miss."+zone, true, (*topologyRig).isMiss).then =
			add("udp", "unconnected.miss."+zone, true, (*topologyRig).isHit)
	}
	return all
}

// Each topology's lookups become one trace each, with all that belongs to it and no word
// that is false.
func TestLookupsOnEachTopology(t *testing.T) {
	for _, top := range lab.Topologies() {
		t.Run(top.Name, func(t *testing.T) {
			t.Parallel()
			r := newTopologyRig(t, top)
			undo, err := r.DropQueries()
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			lookups := r.lookups()
			r.make(lookups)
			r.await(func(all []*trace.Trace) bool { return len(toCheck(all)) >= len(lookups) })
			r.checkAll(lookups, toCheck(r.stopTracer()))
		})
	}
}

// make makes lookups at once, and waits for all.
func (r *topologyRig) make(lookups []*topologyLookup) {
	follows := make(map[*topologyLookup]bool)
	for _, q := range lookups {
		follows[q.then] = true
	}
	var wait sync.WaitGroup
	for _, q := range lookups {
		if follows[q] {
			continue
		}
		wait.Go(func() {
			for ; q != nil; q = q.then {
				q.res, _ = r.Client(r.top.Client).Exchange(r.t.Context(), q.Query)
			}
		})
	}
	wait.Wait()
}

// await waits for the traces to be as wanted, for as long as the tracer may take: what is
// wrong with them is for checks to tell.
func (r *topologyRig) await(enough func([]*trace.Trace) bool) {
	for end := time.Now().Add(patience / 2); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var all []*trace.Trace
		for _, rec := range r.records() {
			if tr, ok := rec.(*trace.Trace); ok {
				all = append(all, tr)
			}
		}
		if enough(all) {
			return
		}
	}
}

// stopTracer lets the tracer write all that it still holds, and returns all its traces,
// without what is true of a machine that is short of CPU and of no topology.
func (r *topologyRig) stopTracer() []*trace.Trace {
	r.t.Helper()
	if err := r.tracer.Stop(); err != nil {
		r.t.Fatal(err)
	}
	var all []*trace.Trace
	waits := r.starved()
	eachTrace(r.t, r.RecordFile(), func(tr *trace.Trace) {
		tr.Diagnosis = slices.DeleteFunc(tr.Diagnosis, func(f trace.Finding) bool {
			return f.InDoubt && lostPackets(tr) || f.Code == "server-overloaded" && waits.during(tr)
		})
		all = append(all, tr)
	})
	return all
}

// toCheck returns the traces of lookups that are checked. CoreDNS's health checks ask for
// the root, and are nobody's lookup.
func toCheck(all []*trace.Trace) []*trace.Trace {
	return slices.DeleteFunc(all, func(tr *trace.Trace) bool {
		return tr.QName == "." || strings.HasPrefix(tr.QName, warmUpLabel)
	})
}

// checkAll wants exactly one trace of each lookup, as its check wants it, and no other.
func (r *topologyRig) checkAll(lookups []*topologyLookup, traces []*trace.Trace) {
	r.t.Helper()
	for _, q := range lookups {
		var own []*trace.Trace
		traces = slices.DeleteFunc(traces, func(tr *trace.Trace) bool {
			is := isOf(tr, q.res)
			if is {
				own = append(own, tr)
			}
			return is
		})
		if len(own) != 1 {
			r.t.Errorf("%s: %d traces, expected one", q.what(), len(own))
		}
		for _, tr := range own {
			for _, wrong := range q.check(r, tr, q.res) {
				r.t.Errorf("%s: %s", q.what(), wrong)
			}
		}
	}
	for _, tr := range traces {
		r.t.Errorf("a trace of no lookup: %s", brief(tr))
	}
}

// isOf tells whether a trace is of a client's lookup, by what is in the query's packets.
func isOf(tr *trace.Trace, res lab.Result) bool {
	d := &trace.DNS{}
	switch {
	case tr.Exchange != nil:
		d = &tr.Exchange.DNS
	case tr.Query != nil:
		d = &tr.Query.DNS
	}
	return tr.QName == res.Name && d.ID == res.ID && d.ClientPort == res.Local.Port() && d.Protocol == res.Network
}

// said is what the findings say.
func said(tr *trace.Trace) string {
	var all []string
	for _, f := range tr.Diagnosis {
		all = append(all, f.Code+": "+f.Summary)
	}
	return strings.Join(all, "; ")
}

// brief says of a trace what tells it from others.
func brief(tr *trace.Trace) string {
	s := fmt.Sprintf("%s %s, findings %v, gaps %q, %d upstreams", tr.QName, tr.Outcome, findings(tr), tr.Gaps, len(tr.Upstreams))
	if ex := tr.Exchange; ex != nil {
		s += fmt.Sprintf(", %s from %s port %d to %s port %d", ex.Protocol, ex.ClientIP, ex.ClientPort, ex.ServerIP, ex.ServerPort)
	}
	if tr.Query == nil {
		return s + ", without a query record"
	}
	return s
}

// wrongs collects what is not as expected.
type wrongs []string

func (w *wrongs) unless(ok bool, format string, args ...any) bool {
	if !ok {
		*w = append(*w, fmt.Sprintf(format, args...))
	}
	return ok
}

// isAnswered is what holds of every lookup that CoreDNS answered.
func (r *topologyRig) isAnswered(tr *trace.Trace, res lab.Result) (w wrongs) {
	w.unless(res.Err == nil, "the client got %v", res.Err)
	w.unless(tr.Outcome == trace.OutcomeAnswered, "outcome %s", tr.Outcome)
	w.unless(tr.RCode == dns.RcodeToString[max(res.Rcode(), 0)], "rcode %s, the client got %d", tr.RCode, res.Rcode())
	gaps := slices.DeleteFunc(slices.Clone(tr.Gaps), func(gap string) bool { return strings.Contains(gap, "resolution") })
	w.unless(len(gaps) == 0, "gaps %q", gaps)
	w.unless(tr.Query != nil, "without CoreDNS's record")
	if ex := tr.Exchange; w.unless(ex != nil, "without its exchange") {
		w.unless(ex.Outcome == trace.OutcomeAnswered, "its exchange %s", ex.Outcome)
		w.addressed(r, ex, res)
	}
	return w
}

// addressed wants the server's address as the packets of the client have it.
func (w *wrongs) addressed(r *topologyRig, ex *trace.Exchange, res lab.Result) {
	want := r.top.OnWire[slices.Index(r.top.Services[:], res.Server)]
	w.unless(ex.ServerIP == want.Addr() && ex.ServerPort == want.Port(), "asked %s port %d, expected %s", ex.ServerIP, ex.ServerPort, want)
	w.unless(ex.ClientIP == res.Local.Addr(), "from %s, expected %s", ex.ClientIP, res.Local.Addr())
}

// isMiss wants one attempt at each server on the way, each with its exchange.
func (r *topologyRig) isMiss(tr *trace.Trace, res lab.Result) []string {
	w := r.isAnswered(tr, res)
	w.unless(len(tr.Diagnosis) == 0, "healthy, and findings %s", said(tr))
	w.unless(tr.Query == nil || tr.Query.Cache == trace.CacheMiss, "not a miss")
	var ids []uint16
	r.isForwarded(&w, "", r.top.Servers, tr.Query, tr.Upstreams, &ids)
	if w.unless(len(ids) == 1, "%d queries to the upstream", len(ids)) {
		got := r.Upstream(answeringUpstream).Received(tr.QName)
		w.unless(len(got) == 1 && got[0].ID == ids[0], "the upstream got %+v, expected ID %d", got, ids[0])
	}
	return w
}

// isHit wants an answer out of the first server's cache.
func (r *topologyRig) isHit(tr *trace.Trace, res lab.Result) []string {
	w := r.isAnswered(tr, res)
	w.unless(len(tr.Diagnosis) == 0, "healthy, and findings %s", said(tr))
	w.unless(tr.Query == nil || tr.Query.Cache == trace.CacheHit, "not a hit")
	w.unless(len(tr.Upstreams) == 0, "%d upstreams", len(tr.Upstreams))
	return w
}

// isSilent wants every attempt with the packets that are its own, in order, and the
// upstream named once.
func (r *topologyRig) isSilent(tr *trace.Trace, res lab.Result) []string {
	w := r.isAnswered(tr, res)
	var ids []uint16
	r.isForwarded(&w, "", r.top.Servers, tr.Query, tr.Upstreams, &ids)
	var got []uint16
	for _, q := range r.Upstream(silentUpstream).Received(tr.QName) {
		got = append(got, q.ID)
	}
	w.unless(len(ids) > 1, "%d attempts with packets", len(ids))
	if len(r.top.Servers) > 1 {
		// Queries of several that wait at once come in any order.
		slices.Sort(ids)
		slices.Sort(got)
	}
	w.unless(slices.Equal(ids, got), "attempts with the DNS IDs %d, the upstream got %d", ids, got)
	address := r.Upstream(silentUpstream).V4().Addr().String()
	if strings.HasSuffix(tr.QName, topologyZones[1]) {
		address = r.Upstream(silentUpstream).V6().Addr().String()
	}
	timeouts := 0
	for _, f := range tr.Diagnosis {
		if f.Code == "upstream-timeout" {
			timeouts++
			w.unless(strings.Contains(f.Summary, address), "%s: %q, expected %s", f.Code, f.Summary, address)
			continue
		}
		w.unless(f.Code == "upstream-unhealthy", "%s: %s", f.Code, f.Summary)
	}
	w.unless(timeouts == 1, "upstream-timeout %d times", timeouts)
	return w
}

// isForwarded wants an entry of its own for each attempt of a server's record, with its
// exchange; where the upstream is another server of the topology, with that one's record
// and attempts. ids are the DNS IDs of what the last server asked, in order.
func (r *topologyRig) isForwarded(w *wrongs, at string, servers []lab.DNSServer, q *trace.Query, ups []trace.Upstream, ids *[]uint16) {
	if q == nil || !w.unless(len(ups) == len(q.Upstreams) && len(ups) > 0, "%s%d upstreams, CoreDNS made %d attempts", at, len(ups), len(q.Upstreams)) {
		return
	}
	for i, u := range ups {
		where := fmt.Sprintf("%sattempt %d: ", at, i+1)
		w.unless(u.Attempt != nil && u.Attempt.Attempt == i+1, "%snot in its place: %+v", where, u.Attempt)
		w.unless(u.Join == trace.JoinExact, "%sjoin %s", where, u.Join)
		if w.unless(u.Exchange != nil, "%swithout its exchange", where) && len(servers) == 1 {
			*ids = append(*ids, u.Exchange.ID)
		}
		if len(servers) > 1 && w.unless(u.Query != nil, "%swithout the next server's record", where) {
			r.isForwarded(w, where, servers[1:], u.Query, u.Upstreams, ids)
		}
	}
}

// isDropped wants the drop, where it was, and nothing that the query did later.
func (r *topologyRig) isDropped(tr *trace.Trace, res lab.Result) []string {
	var w wrongs
	w.unless(res.Err != nil, "the client got an answer")
	w.unless(tr.Outcome == trace.OutcomeDropped, "outcome %s", tr.Outcome)
	w.unless(tr.Query == nil && len(tr.Upstreams) == 0, "it reached CoreDNS: %s", brief(tr))
	code := "dropped-by-netfilter"
	if r.top.Drop.BPF {
		code = "dropped-by-bpf"
	}
	w.unless(slices.Equal(findings(tr), []string{code}), "findings %s, expected %s", said(tr), code)
	ex := tr.Exchange
	if !w.unless(ex != nil, "without its exchange") {
		return w
	}
	w.addressed(r, ex, res)
	if d := ex.Drop; w.unless(d != nil, "without its drop") {
		w.unless(d.Message == trace.MessageQuery, "a %s was dropped", d.Message)
		w.unless(d.NetNSName == r.Host(r.top.Drop.Host).Netns, "dropped in %s, expected %s", d.NetNSName, r.Host(r.top.Drop.Host).Netns)
		w.unless(r.top.Drop.Device == "" || d.IfName == r.top.Drop.Device, "dropped at %s, expected %s", d.IfName, r.top.Drop.Device)
	}
	return w
}
