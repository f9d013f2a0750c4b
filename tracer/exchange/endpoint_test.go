package exchange

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// numbered names cgroups after their ids; those above 100 are containers.
type numbered struct{}

func (numbered) Cgroup(id uint64) (path, container string) {
	path = fmt.Sprintf("/group/%d", id)
	if id > 100 {
		container = fmt.Sprint(id)
	}
	return path, container
}

func sentBy(pid int, comm string, cgroup uint64) func(*capture.Packet) {
	return func(p *capture.Packet) { p.PID, p.Comm, p.CgroupID = pid, comm, cgroup }
}

func TestWhoItWas(t *testing.T) {
	dig := trace.Endpoint{Process: "dig", PID: 42, Cgroup: "/group/7"}
	for _, tc := range []struct {
		name             string
		query, response  func(*capture.Packet)
		client, server   trace.Endpoint
		noClient, nobody bool
	}{
		{name: "both are proven", query: sentBy(42, "dig", 7), response: sentBy(53, "coredns", 101),
			client: dig, server: trace.Endpoint{Process: "coredns", PID: 53, Cgroup: "/group/101", Container: "101"}},
		{name: "the response leaves in a softirq: its socket's cgroup is all that is known", query: sentBy(42, "dig", 7), response: sentBy(0, "", 101),
			client: dig, server: trace.Endpoint{Cgroup: "/group/101", Container: "101"}},
		{name: "no cgroup", query: sentBy(42, "dig", 0), response: sentBy(0, "", 0), client: trace.Endpoint{Process: "dig", PID: 42}, nobody: true},
		{name: "nothing is known", query: sentBy(0, "", 0), response: sentBy(0, "", 0), noClient: true, nobody: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			f.table.cfg.Names = numbered{}
			q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
			f.packet(capture.TX, podNS, 2, pod, service, q, tc.query)
			f.packet(capture.RX, nodeNS, 2, pod, service, q)
			f.packet(capture.TX, serverNS, 2, service, pod, r, tc.response)
			f.packet(capture.RX, podNS, 2, service, pod, r)
			f.after(time.Second)
			ex := f.one()
			if (ex.Client == nil) != tc.noClient || ex.Client != nil && *ex.Client != tc.client {
				t.Errorf("client %+v", ex.Client)
			}
			if (ex.Server == nil) != tc.nobody || ex.Server != nil && *ex.Server != tc.server {
				t.Errorf("server %+v", ex.Server)
			}
		})
	}
}

// A retransmission may prove what the first query left open; what is proven stays.
func TestProofIsAdded(t *testing.T) {
	f := newFeed(t)
	f.table.cfg.Names = numbered{}
	q := query(t, "example.com.", 7)
	f.packet(capture.TX, podNS, 2, pod, service, q, sentBy(0, "", 101))
	f.packet(capture.TX, podNS, 2, pod, service, q, sentBy(42, "dig", 101))
	f.packet(capture.TX, podNS, 2, pod, service, q, sentBy(43, "other", 102))
	f.after(9 * time.Second)
	if got := *f.one().Client; got != (trace.Endpoint{Process: "dig", PID: 42, Cgroup: "/group/101", Container: "101"}) {
		t.Errorf("client %+v", got)
	}
}

// What is passed on is the receiver's: what comes later does not change it, nor
// does another exchange in the same memory.
func TestPassedOnIsNotChanged(t *testing.T) {
	f := newFeed(t)
	f.throughService(query(t, "first.example.", 1), response(t, "first.example.", 1, 0))
	f.after(time.Second)
	first := *f.one()
	line := string(f.got[0].AppendJSON(nil))
	for id := range uint16(50) {
		f.throughService(query(t, "other.example.", id), response(t, "other.example.", id, 3))
		f.after(time.Second)
	}
	if again := string(f.got[0].AppendJSON(nil)); again != line || first.QName != "first.example." {
		t.Errorf("changed:\n%s\n%s", line, again)
	}
}

func TestTunnelAndVLAN(t *testing.T) {
	f := newFeed(t)
	outer := &capture.Outer{Kind: "vxlan", Src: netip.MustParseAddrPort("192.168.49.2:41000"), Dst: netip.MustParseAddrPort("192.168.49.3:8472"), VNI: 1}
	q := query(t, "example.com.", 7)
	f.packet(capture.TX, podNS, 2, pod, server, q, sentBy(42, "dig", 0))
	f.skb++ // a program carries it
	f.packet(capture.TX, nodeNS, 3, pod, server, q, sentBy(99, "overlay", 0), func(p *capture.Packet) { p.VLAN = 7; p.Outer = outer })
	f.after(9 * time.Second)
	ex := f.one()
	if ex.Transmissions != 1 || ex.Client.PID != 42 {
		t.Errorf("%d transmissions, client %+v", ex.Transmissions, ex.Client)
	}
	path := []trace.Sighting{ex.Path.At(0), ex.Path.At(1)}
	if path[0].Tunnel != nil || path[0].VLAN != 0 {
		t.Errorf("in the pod: %+v", path[0])
	}
	want := trace.Tunnel{Kind: "vxlan", Src: outer.Src, Dst: outer.Dst, VNI: 1}
	if path[1].VLAN != 7 || path[1].Tunnel == nil || *path[1].Tunnel != want || path[1].Src != pod {
		t.Errorf("on the node: %+v", path[1])
	}
}
