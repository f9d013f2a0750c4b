package integration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

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

// pastProxy returns a lookup as the server behind the proxy has it, for a topology that
// has one: the client's exchange is with the proxy, which asks once, and what the server
// then does belongs to that.
func (r *topologyRig) pastProxy(tr *trace.Trace) (*trace.Trace, wrongs) {
	var w wrongs
	if !r.top.Proxied {
		return tr, nil
	}
	w.unless(tr.Query == nil, "the proxy has a record")
	if !w.unless(len(tr.Upstreams) == 1, "the proxy asked %d times", len(tr.Upstreams)) {
		return tr, w
	}
	u := &tr.Upstreams[0]
	if w.unless(u.Exchange != nil && tr.Exchange != nil, "without what the proxy was asked, or asked") {
		proxy, _ := tr.Exchange.ServerPlace()
		from, _ := u.Exchange.ClientPlace()
		w.unless(proxy == from && proxy.NetNS != 0, "the query went to %v, and on from %v", proxy, from)
		w.unless(u.Exchange.Outcome == trace.OutcomeAnswered, "what the proxy asked is %s", u.Exchange.Outcome)
		// Over TCP it has the kernel pass on what comes (splice), and reads nothing.
		read := tr.Exchange.Milestones.Query.Read != trace.NotSeen && u.Exchange.Milestones.Response.Read != trace.NotSeen
		w.unless(read || tr.Exchange.Protocol == "tcp", "the proxy did not read: %s", tr.AppendJSON(nil))
	}
	past := *tr
	past.Query, past.Upstreams = u.Query, u.Upstreams
	return &past, w
}

// isAnswered is what holds of every lookup that CoreDNS answered.
func (r *topologyRig) isAnswered(tr *trace.Trace, res lab.Result) (w wrongs) {
	w.unless(res.Err == nil, "the client got %v", res.Err)
	w.unless(tr.Outcome == trace.OutcomeAnswered, "outcome %s", tr.Outcome)
	w.unless(tr.RCode == dns.RcodeToString[max(res.Rcode(), 0)], "rcode %s, the client got %d", tr.RCode, res.Rcode())
	gaps := slices.DeleteFunc(slices.Clone(tr.Gaps), func(gap string) bool {
		return strings.Contains(gap, "resolution") || r.mayOverlap(tr) && strings.Contains(gap, "inferred from the order")
	})
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

// mayOverlap tells whether a server may ask the same of a silent upstream for two of its
// clients' attempts at once: it goes on with the first when that is given up, and its next
// attempt may begin within half a millisecond of the second's first. Which is whose is
// then inferred from their order.
func (r *topologyRig) mayOverlap(tr *trace.Trace) bool {
	return len(r.top.Servers) > 1 && strings.Contains(tr.QName, ".silent.")
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
		overlaps := at != "" && u.Attempt.Outcome == trace.OutcomeTimeout && u.Join == trace.JoinInferred
		w.unless(u.Join == trace.JoinExact || overlaps, "%sjoin %s", where, u.Join)
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
	if d := ex.LastDrop(); w.unless(d != nil, "without its drop") {
		w.unless(d.Message == trace.MessageQuery, "a %s was dropped", d.Message)
		w.unless(d.NetNSName == r.Host(r.top.Drop.Host).Netns, "dropped in %s, expected %s", d.NetNSName, r.Host(r.top.Drop.Host).Netns)
		w.unless(r.top.Drop.Device == "" || d.IfName == r.top.Drop.Device, "dropped at %s, expected %s", d.IfName, r.top.Drop.Device)
	}
	return w
}
