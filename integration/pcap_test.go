package integration

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// tsharkFields are what tshark tells of each packet of a file; the name is empty and
// malformed is not where it could not take the message apart.
const tsharkFields = "frame.interface_name ip.src ip.dst udp.srcport udp.dstport dns.id dns.qry.name dns.resp.ttl _ws.malformed frame.comment"

type shown struct{ itf, src, dst, srcPort, dstPort, id, name, ttl, malformed, comment string }

// tshark reads a file with packets.
func tshark(t *testing.T, file string) []shown {
	t.Helper()
	args := []string{"-r", file, "-n", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"}
	for _, f := range strings.Fields(tsharkFields) {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark %v: %v", args, err)
	}
	var all []shown
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "|")
		if len(f) != 10 {
			t.Fatalf("tshark says %q", line)
		}
		all = append(all, shown{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9]})
	}
	return all
}

// explain writes the packets of a lookup, one for each place at which it was seen:
// as captured while the tracer has them, else rebuilt from the record. tshark reads
// both, and finds the places and the drop.
func TestExplainPcap(t *testing.T) {
	r := newRig(t, "--timeout", "2s")
	r.answered(lab.Query{Name: "packets.test."})
	undo, err := r.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Leg: lab.ClientLeg})
	if err != nil {
		t.Fatal(err)
	}
	r.ask(lab.Query{Name: "dropped.test.", Timeout: time.Second})
	undo()
	answered, dropped := r.trace("packets.test."), r.trace("dropped.test.")
	explain := func(tr *trace.Trace, args ...string) []shown {
		t.Helper()
		file := filepath.Join(r.Dir(), "packets.pcapng")
		if _, err := r.Dnstrace(context.Background(), append([]string{"explain", tr.TraceID.String(), "--pcap", file}, args...)...); err != nil {
			t.Fatal(err)
		}
		return tshark(t, file)
	}
	live, file := []string{"--api", r.APISocket()}, []string{"--from", r.RecordFile()}
	for origin, args := range map[string][]string{"message as captured": live, "message rebuilt from the record": file} {
		packets := explain(answered, args...)
		sightings := onDevices(answered.Exchange) + onDevices(answered.Upstreams[0].Exchange)
		if len(packets) != sightings {
			t.Errorf("%s: %d packets, the record has %d sightings", origin, len(packets), sightings)
		}
		ttl, legs := 0, map[string]int{}
		for _, p := range packets {
			if p.name != "packets.test" || p.malformed != "" || !strings.HasSuffix(p.comment, origin) || !strings.HasPrefix(p.comment, "trace "+answered.TraceID.String()) {
				t.Errorf("%s: %+v", origin, p)
			}
			if p.ttl != "" {
				ttl++
			}
			legs[p.id]++
		}
		if ttl == 0 || len(legs) != 2 {
			t.Errorf("%s: %d packets with answers; packets by DNS ID: %v", origin, ttl, legs)
		}
		first := packets[0]
		if want := r.Host("client-a").Netns + "/eth0"; first.itf != want || first.src != r.Host("client-a").V4.String() || first.dst != lab.ServiceV4.Addr().String() || first.dstPort != "53" {
			t.Errorf("%s: the first packet is %+v", origin, first)
		}

		packets = explain(dropped, args...)
		last := packets[len(packets)-1]
		if !strings.HasPrefix(last.itf, r.Host(lab.Node).Netns+"/") {
			t.Errorf("%s: the last packet is at %s", origin, last.itf)
		}
		wantAll(t, last.comment, "DROPPED: NETFILTER_DROP at "+dropped.Exchange.LastDrop().Where, origin)
	}
}

// onDevices counts the sightings of an exchange that are packets: not those at sockets.
func onDevices(ex *trace.Exchange) (n int) {
	for _, s := range ex.Path.All() {
		if s.Direction == trace.DirectionTX || s.Direction == trace.DirectionRX {
			n++
		}
	}
	return n
}
