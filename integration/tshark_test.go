package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// What a stranger reads in stamped queries: tcpdump takes them from the wire at
// the upstream, which CoreDNS has from a resolv.conf, and tshark takes them apart.
func TestTraceparentInTshark(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	server, records := startStamping(t, r)
	packets, dump := startTcpdump(t, r, lab.Upstream)

	extended := new(dns.Msg).SetQuestion("edns.test.", dns.TypeA)
	extended.SetEdns0(1400, true)
	cookie := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	extended.IsEdns0().Option = []dns.EDNS0{cookie, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("hello")}}
	for _, q := range []lab.Query{
		{Name: "plain.test."}, {Name: "edns.test.", Message: extended}, {Name: "bytcp.test."}, {Name: "unstamped.test."},
	} {
		res := r.answered(q)
		if opt := res.Answer.IsEdns0(); (opt != nil) != (q.Message != nil) || opt != nil && len(opt.Option) != 0 {
			t.Errorf("%s: the client got\n%s", q.Name, res.Answer)
		}
	}
	waitForPacket(t, packets, "\x09unstamped\x04test\x00")
	if err := dump.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}

	queries := make(map[string]*trace.Query)
	for _, rec := range readRecords(t, records) {
		if q, ok := rec.(*trace.Query); ok {
			queries[q.QName] = q
		}
	}
	got := dissect(t, r, packets)
	for name, want := range map[string]dissected{
		"plain.test": {Size: []string{"1232"}, Flags: []string{"0x0000"}, Codes: []string{"65500"}, Lengths: []string{"27"}, Data: []string{"OURS"}},
		"edns.test": {Size: []string{"1400"}, Flags: []string{"0x8000"}, Codes: []string{"10", "65001", "65500"},
			Lengths: []string{"8", "5", "27"}, Data: []string{"0102030405060708", "68656c6c6f", "OURS"}},
		"bytcp.test":     {Size: []string{"1232"}, Flags: []string{"0x0000"}, Codes: []string{"65500"}, Lengths: []string{"27"}, Data: []string{"OURS"}},
		"unstamped.test": {},
	} {
		q := queries[name+"."]
		if q == nil {
			t.Errorf("%s has no record", name)
			continue
		}
		// Version, reserved, trace id, span id of the attempt, flags.
		span := trace.NewSpanID(q.TraceID, q.SpanID, trace.RoleAttempt, 1)
		ours := "00" + "00" + q.TraceID.String() + span.String() + "01"
		for i, data := range want.Data {
			want.Data[i] = strings.Replace(data, "OURS", ours, 1)
		}
		want.Name = []string{name}
		if fmt.Sprint(got[name]) != fmt.Sprint([]dissected{want}) {
			t.Errorf("%s: tshark reads\n%v, expected\n%v", name, got[name], []dissected{want})
		}
		if q.Stamped != (len(want.Data) > 0) {
			t.Errorf("%s: stamped is %v", name, q.Stamped)
		}
	}
	if len(got) != len(queries) {
		t.Errorf("the upstream was asked for %v", got)
	}
}

// startStamping starts a CoreDNS whose upstreams come from files: the first one
// is stamped, over UDP or TCP, the second one is outside the list.
func startStamping(t *testing.T, r *rig) (server *lab.Process, records string) {
	t.Helper()
	var files []string
	for i := range 2 {
		file := filepath.Join(r.Dir(), fmt.Sprintf("resolv%d.conf", i))
		content := fmt.Sprintf("search test\nnameserver %s\noptions ndots:5\n", r.Upstream(i).V4().Addr())
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	records = filepath.Join(r.Dir(), "queries.jsonl")
	server, err := r.StartCoreDNS(fmt.Sprintf(`. {
    dnstrace {
        output file %s
        stamp %s/32
    }
    forward unstamped.test %s
    forward bytcp.test %s {
        force_tcp
    }
    forward . %s
}
`, records, r.Upstream(0).V4().Addr(), files[1], files[0], files[0]))
	if err != nil {
		t.Fatal(err)
	}
	return server, records
}

// startTcpdump writes the DNS packets on a host's device to a file.
func startTcpdump(t *testing.T, r *rig, host string) (file string, dump *lab.Process) {
	t.Helper()
	file = filepath.Join(r.Dir(), "packets.pcap")
	dump, err := r.Start(lab.Spec{
		Name: "tcpdump", Host: host, Path: "tcpdump", Ready: lab.ReadyLine("listening on"),
		// As root, since another user could not write to the lab's folder.
		Args: []string{"-i", "eth0", "--immediate-mode", "-U", "-Z", "root", "-w", file, "port 53"},
	})
	if err != nil {
		t.Fatalf("%v (of the Debian package tcpdump)", err)
	}
	return file, dump
}

// waitForPacket waits until a query and its response for a name in wire format
// are in a file of packets: tcpdump drops what it has not written when it stops.
func waitForPacket(t *testing.T, file, name string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(content, []byte(name)) >= 2 {
			return
		}
	}
	t.Fatalf("tcpdump has not seen a query and response for %q after %v", name, patience)
}

// dissected is what tshark says of a query's OPT record.
type dissected struct {
	Name    []string `json:"dns.qry.name"`
	Size    []string `json:"dns.rr.udp_payload_size"`
	Flags   []string `json:"dns.resp.z"`
	Codes   []string `json:"dns.opt.code"`
	Lengths []string `json:"dns.opt.len"`
	Data    []string `json:"dns.opt.data"`
	Expert  []string `json:"_ws.expert.message"` // what tshark finds wrong
}

// dissect returns the queries in a file of packets by name.
func dissect(t *testing.T, r *rig, file string) map[string][]dissected {
	t.Helper()
	args := []string{"-r", file, "-Y", "dns.flags.response == 0", "-T", "json"}
	for _, field := range []string{
		"dns.qry.name", "dns.rr.udp_payload_size", "dns.resp.z", "dns.opt.code", "dns.opt.len", "dns.opt.data", "_ws.expert.message",
	} {
		args = append(args, "-e", field)
	}
	out, err := r.Run(context.Background(), lab.Spec{Name: "tshark", Path: "tshark", Args: args})
	if err != nil {
		t.Fatalf("%v (of the Debian package tshark)", err)
	}
	var found []struct {
		Source struct {
			Layers dissected `json:"layers"`
		} `json:"_source"`
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("tshark: %v\n%s", err, out)
	}
	queries := make(map[string][]dissected)
	for _, f := range found {
		q := f.Source.Layers
		if slices.Equal(q.Name, []string{"<Root>"}) {
			continue // the health check of forward
		}
		queries[strings.Join(q.Name, " ")] = append(queries[strings.Join(q.Name, " ")], q)
	}
	return queries
}
