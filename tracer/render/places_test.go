package render

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// A query that dies before a device sent it dies where its client is, and not in the node.
func TestDroppedWhereTheClientIs(t *testing.T) {
	for name, tc := range map[string]struct {
		drop   trace.Drop
		client *trace.Endpoint
		want   string
	}{
		"by a rule of its own OUTPUT":              {trace.Drop{Reason: "NETFILTER_DROP"}, nil, "DROPPED in client"},
		"by a program at its device":               {trace.Drop{Reason: "TC_EGRESS", IfName: "eth0"}, &trace.Endpoint{PID: 7, Process: "dig"}, "DROPPED in client"},
		"by a device, who sent it is not known":    {trace.Drop{Reason: "TC_INGRESS", IfName: "veth0"}, nil, "DROPPED in node"},
		"by a rule, of a response without a query": {trace.Drop{Reason: "NETFILTER_DROP", Message: trace.MessageResponse}, nil, "DROPPED in node"},
	} {
		d := tc.drop
		d.NetNS, d.NetNSName = 7, "pod"
		if d.Message == "" {
			d.Message = trace.MessageQuery
		}
		ex := &trace.Exchange{DNS: trace.DNS{ClientIP: netip.MustParseAddr("10.0.0.1"), QName: "a.test.", QType: "A", Protocol: "udp"}, ServerIP: netip.MustParseAddr("10.0.0.2"), ServerPort: 53,
			Outcome: trace.OutcomeDropped, Transmissions: 1, Drops: []trace.Drop{d}, Client: tc.client}
		tr := &trace.Trace{QName: "a.test.", QType: "A", Outcome: trace.OutcomeDropped, Exchange: ex, Client: tc.client}
		var out strings.Builder
		if err := Waterfall(&out, tr, Options{Width: 120}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), tc.want) {
			t.Errorf("%s: no %q in\n%s", name, tc.want, out.String())
		}
	}
}

// What is no lookup is not drawn as one.
func TestOperations(t *testing.T) {
	ex := &trace.Exchange{DNS: trace.DNS{QName: "upd.test.", QType: "SOA", Protocol: "udp", Opcode: 5, RCode: "NOTIMP"}, Outcome: trace.OutcomeAnswered, Transmissions: 1}
	tr := &trace.Trace{QName: "upd.test.", QType: "SOA", RCode: "NOTIMP", Outcome: trace.OutcomeAnswered, Exchange: ex}
	var out strings.Builder
	if err := Waterfall(&out, tr, Options{Width: 120}); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(out.String(), "\n")
	if !strings.Contains(first, "upd.test. UPDATE") || strings.Contains(first, "SOA") {
		t.Errorf("%s", first)
	}
	if cell, _ := typeCell(tr); cell != "UPDATE" {
		t.Errorf("type %s", cell)
	}
}
