package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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
	if len(top.Servers) > 1 || top.Proxied {
		return "7s"
	}
	return "3s"
}

// warmUpLabel is the first label of names whose lookups are not checked.
const warmUpLabel = "warm-up"

// warmUp makes lookups each way, by which the tracer learns of ports behind a translation
// what a node that is at work has told it long ago: by the records of the first that the
// server has such a port, by the responses of the second at which addresses.
func (r *topologyRig) warmUp() {
	r.warmUpOnce("first.")
	r.await(4, func(tr *trace.Trace) bool { return r.recorded(tr) != nil })
	r.warmUpOnce("second.")
	r.await(8, func(tr *trace.Trace) bool { return r.recorded(tr) != nil })
}

// recorded returns the record of the first server that keeps records; nil if it is not
// in the trace.
func (r *topologyRig) recorded(tr *trace.Trace) *trace.Query {
	if r.top.Proxied && len(tr.Upstreams) == 1 {
		return tr.Upstreams[0].Query
	}
	return tr.Query
}

// warmUpOnce makes a lookup each way.
func (r *topologyRig) warmUpOnce(label string) {
	for i, zone := range topologyZones {
		for _, network := range []string{"udp", "tcp"} {
			q := lab.Query{Name: warmUpLabel + "." + network + "." + label + zone, Network: network, Server: r.top.Services[i]}
			if _, err := r.Client(r.top.Client).Exchange(r.t.Context(), q); err != nil {
				r.t.Fatalf("%s to %s: %v\n%s", q.Name, q.Server, err, r.Outputs())
			}
		}
	}
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

// await waits for n traces that are wanted, for as long as the tracer may take: what is
// wrong with them is for checks to tell.
func (r *topologyRig) await(n int, wanted func(*trace.Trace) bool) {
	for end := time.Now().Add(patience / 2); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		found := 0
		for _, rec := range r.records() {
			if tr, ok := rec.(*trace.Trace); ok && wanted(tr) {
				found++
			}
		}
		if found >= n {
			return
		}
	}
}

// stopTracer lets the tracer write all that it still holds, and gives all traces that are
// checked, without what is true of a machine that is short of CPU and of no topology.
func (r *topologyRig) stopTracer(each func(*trace.Trace)) {
	r.t.Helper()
	if err := r.tracer.Stop(); err != nil {
		r.t.Fatal(err)
	}
	waits := r.starved()
	eachTrace(r.t, r.RecordFile(), func(tr *trace.Trace) {
		tr.Diagnosis = slices.DeleteFunc(tr.Diagnosis, func(f trace.Finding) bool {
			return f.InDoubt && lostPackets(tr) || f.Code == "server-overloaded" && waits.during(tr)
		})
		if isChecked(tr) {
			each(tr)
		}
	})
}

// isChecked tells whether a trace is one of those that are checked. CoreDNS's health checks
// ask for the root, and are nobody's lookup.
func isChecked(tr *trace.Trace) bool {
	return tr.QName != "." && !strings.HasPrefix(tr.QName, warmUpLabel)
}
