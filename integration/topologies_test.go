package integration

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

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
			r.await(len(lookups), isChecked)
			var traces []*trace.Trace
			r.stopTracer(func(tr *trace.Trace) { traces = append(traces, tr) })
			r.checkAll(lookups, traces)
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
			var w wrongs
			if q.res.Err == nil {
				tr, w = r.pastProxy(tr)
			}
			for _, wrong := range append(w, q.check(r, tr, q.res)...) {
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
