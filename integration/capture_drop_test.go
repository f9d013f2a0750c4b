package integration

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// Every hook of netfilter is named as its users name it.
func TestDropSaysWhichHook(t *testing.T) {
	r := newRig(t, "--timeout", "1s")
	r.answered(lab.Query{Name: "first.test."})
	for _, tc := range []struct {
		name  string
		place lab.Place
		want  string
	}{
		{"output", lab.ClientOutput("client-a"), "netfilter hook OUTPUT"},
		{"prerouting", lab.NodeRawPrerouting, "netfilter hook PREROUTING"},
		{"forward", lab.NodeForward, "netfilter hook FORWARD"},
		{"postrouting", lab.NodePostrouting, "netfilter hook POSTROUTING"},
		{"input", lab.ServerInput, "netfilter hook INPUT"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			undo, err := r.DropAt(tc.place, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			name := tc.name + ".test."
			r.ask(lab.Query{Name: name, Timeout: 500 * time.Millisecond})
			if d := r.trace(name).Exchange.Drop; d == nil || d.Words != tc.want {
				t.Errorf("drop %+v, expected %q", d, tc.want)
			}
		})
	}
}

// A Service whose pods listen on another port than it does: the packets after the
// translation are known by what connection tracking knows of them.
func TestServiceOnAnotherPort(t *testing.T) {
	r := tracerOnly(t)
	pod := r.Host(lab.CoreDNS)
	behind := netip.AddrPortFrom(pod.V4, 5300)
	if _, err := r.Serve(lab.CoreDNS, behind); err != nil {
		t.Fatal(err)
	}
	if err := r.SetEndpoints(behind); err != nil {
		t.Fatal(err)
	}
	r.answered(lab.Query{Name: "port.test."})
	ex := r.trace("port.test.").Exchange
	translated := map[string]bool{}
	for _, s := range ex.Path {
		if s.Dst == behind || s.Src == behind {
			translated[s.Message] = true
			if s.NetNSName != r.Host(lab.Node).Netns {
				t.Errorf("seen in %s, where nothing tells what it is: %+v", s.NetNSName, s)
			}
		}
	}
	if ex.Outcome != trace.OutcomeAnswered || !translated[trace.MessageQuery] {
		t.Errorf("outcome %s, path %+v", ex.Outcome, ex.Path)
	}
}
