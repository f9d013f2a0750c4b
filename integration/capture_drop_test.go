package integration

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
			if d := r.trace(name).Exchange.LastDrop(); d == nil || d.Description != tc.want {
				t.Errorf("drop %+v, expected %q", d, tc.want)
			}
		})
	}
}

// A Service whose pods listen on another port than it does: the packets after the
// translation are known by what connection tracking knows of them, and those in the
// pod by the port that it taught.
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
	translated := map[string]map[string]bool{trace.MessageQuery: {}, trace.MessageResponse: {}}
	for _, s := range ex.Path.All() {
		if s.Dst == behind || s.Src == behind {
			translated[s.Message][s.NetNSName] = true
		}
	}
	for message, at := range translated {
		if !at[r.Host(lab.Node).Netns] || !at[pod.Netns] {
			t.Errorf("the %s was seen after its translation in %v, expected the node and the pod", message, at)
		}
	}
	if ex.Outcome != trace.OutcomeAnswered {
		t.Errorf("outcome %s", ex.Outcome)
	}
}

// A tcpdump at the client that is too slow loses copies, and the lookup that nobody
// answers is unanswered, not dropped.
func TestSlowTcpdumpIsNoDrop(t *testing.T) {
	r := tracerOnly(t, "--timeout", "1s")
	tap := -1
	if err := r.Host("client-a").Do(func() (err error) {
		const everything = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		if tap, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, everything); err != nil {
			return err
		}
		return unix.SetsockoptInt(tap, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tap)
	for i := range 20 {
		r.ask(lab.Query{Name: fmt.Sprintf("fills%d.test.", i), Server: r.Upstream(0).V4(), Timeout: time.Second})
	}
	defer r.SilentUpstream(0, "silent.test.")()
	r.ask(lab.Query{Name: "silent.test.", Server: r.Upstream(0).V4(), Timeout: 500 * time.Millisecond})
	if ex := r.trace("silent.test.").Exchange; ex.Outcome != trace.OutcomeUnanswered || ex.LastDrop() != nil {
		t.Errorf("outcome %s, drop %+v", ex.Outcome, ex.LastDrop())
	}
	if lost, err := unix.GetsockoptTpacketStats(tap, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil || lost.Drops == 0 {
		t.Errorf("the tap had room for all: %+v, %v", lost, err)
	}
}
