package origin

import (
	"net/netip"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// query is an exchange whose query was seen at a device first, from an address.
func query(address string, at trace.Sighting, left bool) *trace.Exchange {
	e := &trace.Exchange{DNS: trace.DNS{ClientIP: netip.MustParseAddr(address)}}
	at.Message, at.Direction = trace.MessageQuery, trace.DirectionTX
	e.Path = trace.PathOf(at)
	if left {
		e.Milestones.Query.Left = trace.MilestoneAt(0)
	}
	return e
}

// A client that forges addresses, or makes cgroups of its own, stays one client; those
// of other nodes are distinguished by address, within the way that they came by.
func TestOf(t *testing.T) {
	pod := trace.Sighting{Device: trace.Device{Node: "a", NetNS: 7, IfName: "eth0"}}
	uplink := trace.Sighting{Device: trace.Device{Node: "a", NetNS: 1, IfName: "ens3"}}
	overlay := uplink
	overlay.Tunnel = &trace.Tunnel{Kind: "vxlan", Src: netip.MustParseAddrPort("192.0.2.9:4789")}
	in := func(e *trace.Exchange, cgroup string) *trace.Exchange {
		e.Client = &trace.Endpoint{Cgroup: cgroup}
		return e
	}
	blocked := &trace.Exchange{Client: &trace.Endpoint{PID: 9, Cgroup: "/system.slice/a.service"}, Drops: []trace.Drop{{Message: trace.MessageQuery, Node: "a", NetNS: 7}}}
	for name, tc := range map[string]struct {
		a, b trace.Record
		same bool
	}{
		"a pod under two addresses":         {query("10.0.0.1", pod, true), query("10.0.0.2", pod, true), true},
		"two pods under one address":        {query("10.0.0.1", pod, true), query("10.0.0.1", uplink, true), false},
		"two services of the node":          {in(query("10.0.0.1", uplink, true), "/system.slice/a.service"), in(query("10.0.0.1", uplink, true), "/system.slice/b.service"), false},
		"two pods in the node's namespace":  {in(query("10.0.0.1", uplink, true), "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/a.slice/c"), in(query("10.0.0.1", uplink, true), "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/b.slice/c"), false},
		"two cgroups of one session":        {in(query("10.0.0.1", uplink, true), "/user.slice/user-1.slice/user@1.service/app.slice/x"), in(query("10.0.0.1", uplink, true), "/user.slice/user-1.slice/user@1.service/app.slice/y"), true},
		"two slices that a user made":       {in(query("10.0.0.1", uplink, true), "/user.slice/user-1.slice/user@1.service/x.slice"), in(query("10.0.0.1", uplink, true), "/user.slice/user-1.slice/user@1.service/y.slice"), true},
		"two users":                         {in(query("10.0.0.1", uplink, true), "/user.slice/user-1.slice/session-1.scope"), in(query("10.0.0.1", uplink, true), "/user.slice/user-2.slice/session-2.scope"), false},
		"two clients of other nodes":        {query("10.0.1.1", uplink, false), query("10.0.1.2", uplink, false), false},
		"one client of another node":        {query("10.0.1.1", uplink, false), query("10.0.1.1", uplink, false), true},
		"one address by way of two nodes":   {query("10.0.1.1", uplink, false), query("10.0.1.1", overlay, false), false},
		"dropped before it left the pod":    {blocked, in(query("10.0.0.1", pod, true), "/system.slice/a.service"), true},
		"records without packets":           {&trace.Trace{Query: &trace.Query{DNS: trace.DNS{ClientIP: netip.MustParseAddr("10.0.0.1")}}}, &trace.Trace{Query: &trace.Query{}}, false},
		"an exchange and its own trace":     {query("10.0.0.1", pod, true), &trace.Trace{Exchange: query("10.0.0.1", pod, true)}, true},
		"a trace of which nothing is known": {&trace.Trace{}, &trace.Trace{}, true},
	} {
		if a, b := Of(tc.a), Of(tc.b); (a == b) != tc.same {
			t.Errorf("%s: %+v and %+v", name, a, b)
		}
	}
}

// A client that makes network namespaces holds what it holds in one; those of which no cgroup
// is known, or that of everybody, are what their place is.
func TestHolder(t *testing.T) {
	sent := func(netns uint32, address, cgroup string) Client {
		e := query(address, trace.Sighting{Device: trace.Device{Node: "a", NetNS: netns, IfName: "eth0"}}, cgroup != "away")
		e.Client = &trace.Endpoint{Cgroup: cgroup}
		return Of(e).Holder()
	}
	for name, tc := range map[string]struct {
		a, b Client
		same bool
	}{
		"two namespaces of a pod":          {sent(7, "10.0.0.1", "/kubepods/pod1/c"), sent(8, "10.0.0.2", "/kubepods/pod1/c"), true},
		"two pods in one namespace":        {sent(7, "10.0.0.1", "/kubepods/pod1/c"), sent(7, "10.0.0.1", "/kubepods/pod2/c"), false},
		"two namespaces of nobody":         {sent(7, "10.0.0.1", ""), sent(8, "10.0.0.1", ""), false},
		"two namespaces of the root":       {sent(7, "10.0.0.1", "/"), sent(8, "10.0.0.1", "/"), false},
		"two addresses of other nodes":     {sent(1, "10.0.1.1", "away"), sent(1, "10.0.1.2", "away"), true},
		"records of which nothing is seen": {Client{Name: "10.0.0.1"}.Holder(), Client{Name: "10.0.0.2"}.Holder(), true},
	} {
		if (tc.a == tc.b) != tc.same {
			t.Errorf("%s: %+v and %+v", name, tc.a, tc.b)
		}
	}
}

func TestLabel(t *testing.T) {
	e := query("10.0.0.1", trace.Sighting{}, true)
	if got := Label(e); got != "10.0.0.1" {
		t.Errorf("by address: %s", got)
	}
	e.Client = &trace.Endpoint{Cgroup: "/system.slice/a.service"}
	if got := Label(&trace.Trace{Exchange: e, Client: e.Client}); got != "/system.slice/a.service (10.0.0.1)" {
		t.Errorf("by cgroup: %s", got)
	}
	e.Client = &trace.Endpoint{Cgroup: "/a\x1b[2J\nb"}
	if got := Label(e); got != "/a?[2J b (10.0.0.1)" {
		t.Errorf("by a hostile cgroup: %q", got)
	}
	e.Client = &trace.Endpoint{Pod: "web-1", Namespace: "demo", Cgroup: "/kubepods"}
	if got := Label(e); got != "demo/web-1" {
		t.Errorf("by pod: %s", got)
	}
	if got := Label(&trace.Trace{}); got != "unknown" {
		t.Errorf("of nobody: %s", got)
	}
}
