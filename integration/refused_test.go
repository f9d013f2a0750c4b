package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// What is sent to the Service is refused with an ICMP error: by an eBPF program that makes
// the error of the packet itself, or by a rule of netfilter. The finding says which of them,
// and nothing of the other.
func TestRefusedWithAnICMPError(t *testing.T) {
	for _, tc := range []struct {
		topology, code string
		refuse         func(*lab.Lab) (func(), error)
		byProgram      bool
		outcome        string
	}{
		{"packet-lb", "dropped-by-bpf", (*lab.Lab).RemoveEndpoint, true, trace.OutcomeUnanswered},
		{"bridge", "dropped-by-netfilter", func(l *lab.Lab) (func(), error) {
			return l.RuleAt(lab.NodeForward, lab.Match{Messages: lab.Queries}, "-j", "REJECT")
		}, false, trace.OutcomeDropped},
	} {
		t.Run(tc.topology, func(t *testing.T) {
			top := lab.Topologies()[slices.IndexFunc(lab.Topologies(), func(top lab.Topology) bool { return top.Name == tc.topology })]
			r := newTopologyRig(t, top)
			undo, err := tc.refuse(r.Lab)
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			for i, zone := range topologyZones {
				for _, network := range []string{"udp", "tcp"} {
					q := lab.Query{Name: "refused." + network + "." + zone, Network: network, Server: r.top.Services[i], GiveUpAfter: patience / 4}
					if res, err := r.Client(r.top.Client).Exchange(t.Context(), q); err == nil {
						t.Fatalf("%s: %+v", q.Name, res)
					}
				}
			}
			if tc.byProgram {
				if n, err := r.Count("refused"); err != nil || n < 4 {
					t.Fatalf("the program refused %d packets, expected 4: %v", n, err)
				}
			}
			asked := map[string]int{}
			r.await(4, func(tr *trace.Trace) bool { return tr.Outcome == tc.outcome })
			r.stopTracer(func(tr *trace.Trace) {
				ex := tr.Exchange
				if ex == nil {
					t.Errorf("without its packets: %s", brief(tr))
					return
				}
				asked[fmt.Sprintf("%s %s %v", tr.QName, ex.Protocol, ex.ServerIP.Is6())]++
				var w wrongs
				w.unless(tr.Outcome == tc.outcome, "outcome %s", tr.Outcome)
				w.unless(slices.Equal(findings(tr), []string{tc.code}), "findings %s", said(tr))
				w.unless(tc.byProgram == strings.Contains(said(tr), "eBPF"), "it says %s", said(tr))
				w.unless(strings.Contains(said(tr), r.Host(lab.Node).Netns), "without the place: %s", said(tr))
				if w.unless(ex.ICMP != nil, "without the error") {
					w.unless(ex.ICMP.BPF == tc.byProgram && ex.ICMP.Message == trace.MessageQuery, "the error %+v", ex.ICMP)
					w.unless(ex.ICMP.NetNSName == r.Host(lab.Node).Netns && ex.ICMP.Direction == trace.DirectionTX, "the error's place %+v", ex.ICMP)
				}
				for _, wrong := range w {
					t.Errorf("%s: %s", brief(tr), wrong)
				}
			})
			if tc.byProgram {
				(&faultRig{rig: r.rig}).keep("refused-by-bpf", "refused.udp."+topologyZones[0], "")
			}
			if len(asked) != 4 {
				t.Errorf("traces %v, expected one over UDP and TCP, IPv4 and IPv6", asked)
			}
		})
	}
}
