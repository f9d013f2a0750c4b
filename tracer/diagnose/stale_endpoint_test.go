package diagnose_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// A query that vanished behind a Service: what the EndpointSlices said of the
// address when it was sent decides.
func TestStaleEndpointByEndpointSlices(t *testing.T) {
	asked := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	before, after := trace.SecondsPtr(-90*time.Second), trace.SecondsPtr(time.Second)
	for _, tc := range []struct {
		name     string
		endpoint *trace.ServiceEndpoint
		code     string
		evidence string
	}{
		{"nothing known", nil, diagnose.NoResponseSeen, ""},
		{"removed before", &trace.ServiceEndpoint{State: trace.EndpointRemoved, Pod: "kube-system/coredns-1", Since: before}, diagnose.StaleEndpoint,
			"the EndpointSlices of kube-system/kube-dns do not list 10.244.0.6 (pod kube-system/coredns-1) any more, since 90.0 s before the query"},
		{"removed after", &trace.ServiceEndpoint{State: trace.EndpointRemoved, Since: after}, diagnose.NoResponseSeen, ""},
		{"unlisted", &trace.ServiceEndpoint{State: trace.EndpointUnlisted}, diagnose.StaleEndpoint, "no EndpointSlice of kube-system/kube-dns lists 10.244.0.6"},
		{"ready", &trace.ServiceEndpoint{State: trace.EndpointReady, Pod: "kube-system/coredns-1"}, diagnose.NoResponseSeen, ""},
		{"not ready", &trace.ServiceEndpoint{State: trace.EndpointNotReady, Since: before}, diagnose.NoResponseSeen, ""},
	} {
		ex := behindService(asked, tc.endpoint)
		found := diagnose.New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex})
		if len(found) != 1 || found[0].Code != tc.code {
			t.Errorf("%s: got %+v, expected %s", tc.name, found, tc.code)
			continue
		}
		if !strings.Contains(strings.Join(found[0].Evidence, "\n"), tc.evidence) {
			t.Errorf("%s: evidence %q lacks %q", tc.name, found[0].Evidence, tc.evidence)
		}
	}
}

// What Kubernetes says is quoted where the kernel dropped the query, too.
func TestDropQuotesTheEndpoint(t *testing.T) {
	asked := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	ex := behindService(asked, &trace.ServiceEndpoint{State: trace.EndpointReady, Pod: "kube-system/coredns-1"})
	ex.Outcome = trace.OutcomeDropped
	ex.Drops = []trace.Drop{{Reason: "NEIGH_FAILED", Where: "neigh_invalidate", Message: trace.MessageQuery}}
	found := diagnose.New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex})
	if len(found) != 1 || found[0].Code != diagnose.StaleEndpoint {
		t.Fatalf("got %+v", found)
	}
	if want := "lists 10.244.0.6 (pod kube-system/coredns-1) as ready"; !strings.Contains(strings.Join(found[0].Evidence, "\n"), want) {
		t.Errorf("evidence %q lacks %q", found[0].Evidence, want)
	}
}

// A Service without a ready endpoint is named as the cause, and who refused the query only
// as far as it was seen: kube-proxy's rule, an eBPF program, or an ICMP error from nobody
// knows whom.
func TestServiceWithoutEndpoints(t *testing.T) {
	complaint := func(ex *trace.Exchange) {
		ex.ICMP = &trace.ICMP{Type: 3, Code: 3, From: ex.ServerIP, Message: trace.MessageQuery, NetNS: 8, IfName: "lxc1", Direction: trace.DirectionTX}
	}
	drop := func(d trace.Drop) func(*trace.Exchange) {
		return func(ex *trace.Exchange) {
			d.Message, d.NetNS, d.IfName = trace.MessageQuery, 8, "lxc1"
			ex.Outcome, ex.Drops = trace.OutcomeDropped, []trace.Drop{d}
		}
	}
	for name, tc := range map[string]struct {
		seen func(*trace.Exchange)
		code string
		says string // in summary or evidence
	}{
		"rule":         {drop(trace.Drop{Reason: "NETFILTER_DROP", Where: "nft_do_chain"}), diagnose.DroppedByNetfilter, "kube-proxy"},
		"program":      {drop(trace.Drop{Reason: "TC_INGRESS", BPF: "tc ingress"}), diagnose.DroppedByBPF, "an eBPF program (tc ingress) dropped the client's query in namespace 8"},
		"complaint":    {complaint, diagnose.DroppedOther, "an ICMP error from 10.96.0.10 refused the client's query"},
		"by a program": {func(ex *trace.Exchange) { complaint(ex); ex.ICMP.BPF = true }, diagnose.DroppedByBPF, "an eBPF program refused the client's query in namespace 8, at device lxc1"},
	} {
		ex := behindService(time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC), nil)
		ex.NAT, ex.Server.ServiceState = nil, trace.ServiceNoEndpoints
		tc.seen(ex)
		found := diagnose.New().Trace(&trace.Trace{Header: ex.Header, Exchange: ex})
		if len(found) != 1 || found[0].Code != tc.code || !strings.Contains(found[0].Summary, "The Service kube-system/kube-dns has no ready endpoint") {
			t.Errorf("%s: %+v", name, found)
			continue
		}
		text := found[0].Summary + "\n" + strings.Join(found[0].Evidence, "\n")
		if !strings.Contains(text, "the EndpointSlices of kube-system/kube-dns list no address as ready") || !strings.Contains(text, tc.says) ||
			strings.Contains(text, "kube-proxy") != (name == "rule") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func behindService(at time.Time, e *trace.ServiceEndpoint) *trace.Exchange {
	ex := &trace.Exchange{
		ServerIP: netip.MustParseAddr("10.96.0.10"), ServerPort: 53, Outcome: trace.OutcomeUnanswered, Transmissions: 1,
		NAT:    &trace.NAT{ServerIP: netip.MustParseAddr("10.244.0.6"), Source: trace.NATConntrack, Endpoint: e},
		Server: &trace.Endpoint{Service: "kube-system/kube-dns"},
	}
	ex.Path.Append(trace.Sighting{Message: trace.MessageQuery, Direction: trace.DirectionTX, Device: trace.Device{NetNS: 7, IfName: "eth0"}})
	ex.Milestones.Query.Left = trace.MilestoneAt(0)
	ex.Time, ex.QName, ex.Protocol = at, "a.example.", "udp"
	return ex
}
