//go:build loki

package integration

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// ahead is by how much the clock of the second node is ahead.
const ahead = 25 * time.Millisecond

// seenBy makes of an exchange what a tracer wrote that sees only some namespaces,
// by a clock of its own: in the lab, one node is all there is. nil if it saw
// nothing.
func seenBy(ex *trace.Exchange, clock time.Duration, namespaces ...string) *trace.Exchange {
	e := ex.Clone()
	var seen []trace.Sighting
	at := map[int]trace.Milestone{} // by the index in the whole path
	for i, s := range ex.Path.All() {
		if slices.Contains(namespaces, s.NetNSName) {
			at[i] = trace.MilestoneAt(len(seen))
			seen = append(seen, s)
		}
	}
	if len(seen) == 0 {
		return nil
	}
	for _, p := range []*trace.Progress{&e.Milestones.Query, &e.Milestones.Response} {
		for _, m := range []*trace.Milestone{&p.Left, &p.Arrived, &p.Read} {
			if !m.Seen() {
				continue
			}
			if kept, ok := at[m.Index()]; ok {
				*m = kept
			} else {
				*m = trace.NotObservable
			}
		}
	}
	first, last := seen[0], seen[len(seen)-1]
	e.Time = e.Time.Add(first.Offset.Duration() + clock)
	for i := range seen {
		seen[i].Offset -= first.Offset
	}
	e.Path = trace.PathOf(seen...)
	e.Duration = trace.SecondsPtr((last.Offset - first.Offset).Duration())
	if !slices.Contains(namespaces, ex.Path.At(0).NetNSName) {
		// Behind the translation, and away from the client's process.
		e.ServerIP, e.ServerPort, e.NAT, e.Client = first.Dst.Addr(), first.Dst.Port(), nil, nil
	} else if !slices.ContainsFunc(seen, func(s trace.Sighting) bool { return s.Src == last.Src && s.Direction == trace.DirectionTX }) {
		e.Server = nil
	}
	e.TraceID = trace.NewTraceID(e.Time, e.Flow)
	return e
}

// Client and server on two nodes, each with a tracer and a clock of its own: what
// both wrote, and CoreDNS, is one trace when it is read from Loki. It says who was
// where, and by how much the clocks differ.
func TestLokiTwoNodes(t *testing.T) {
	r := tracerOnly(t, "--record", "exchange")
	url := startLoki(t, r.Lab)
	path, err := r.DnstracePath()
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(r.Dir(), "second.jsonl")
	if _, err := r.Start(lab.Spec{Name: "second", Path: path, Env: []string{"NODE_NAME=node-2"}, Ready: lab.ReadyLine("dnstrace: ready"), Args: []string{
		"run", "--listen", filepath.Join(r.Dir(), "second.sock"), "--api", filepath.Join(r.Dir(), "second-api.sock"),
		"--output", "file:" + second, "--record", "exchange", "--metrics", "", "--kubernetes", "off",
	}}); err != nil {
		t.Fatal(err)
	}
	served := filepath.Join(r.Dir(), "coredns.jsonl")
	if _, err := r.StartCoreDNS(corefile(r.Lab, "dnstrace {\n output file "+served+"\n}")); err != nil {
		t.Fatal(err)
	}
	const name = "apart.loki.test."
	r.answered(lab.Query{Name: name})
	client, node, coredns, upstream := r.Host("client-a").Netns, r.Host(lab.Node).Netns, r.Host(lab.CoreDNS).Netns, r.Host(lab.Upstream).Netns
	ship(t, url, "node-1", r.recordsOf(name, r.RecordFile(), 2, func(ex *trace.Exchange) *trace.Exchange {
		if ex.Path.At(0).NetNSName != client {
			return nil
		}
		return seenBy(ex, 0, client, node)
	}))
	ship(t, url, "node-2", r.recordsOf(name, second, 2, func(ex *trace.Exchange) *trace.Exchange {
		if ex.Path.At(0).NetNSName == client {
			return seenBy(ex, ahead, coredns)
		}
		return seenBy(ex, ahead, coredns, node, upstream)
	}))
	queries := r.recordsOf(name, served, 1, nil)
	for _, rec := range queries {
		head := rec.Head()
		head.Time = head.Time.Add(ahead)
	}
	ship(t, url, "node-2", queries)

	out, err := r.Dnstrace(context.Background(), "explain", name, "-o", "json", "--loki", url, "--since", "10m")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := trace.Decode([]byte(strings.TrimSpace(out)))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tr := rec.(*trace.Trace)
	if tr.Exchange == nil || tr.Query == nil || len(tr.Upstreams) != 1 || tr.Upstreams[0].Exchange == nil || tr.Upstreams[0].Join != trace.JoinExact {
		t.Fatalf("not all of it is joined: %s", out)
	}
	if tr.Exchange.Node != lab.NodeName || tr.Client == nil || tr.Client.Node != lab.NodeName || tr.Server == nil || tr.Server.Node != "node-2" || tr.Upstreams[0].Exchange.Node != "node-2" {
		t.Errorf("nodes: exchange %s, client %+v, server %+v, upstream %s", tr.Exchange.Node, tr.Client, tr.Server, tr.Upstreams[0].Exchange.Node)
	}
	// The way between the nodes takes microseconds, so the offset is as sure.
	if o := tr.ClockOffset; o == nil || (o.Duration()-ahead).Abs() > tr.Duration.Duration() {
		t.Errorf("clock offset %v, expected about %s; gaps %v", o, ahead, tr.Gaps)
	}
	var places []string
	for _, s := range tr.Exchange.Path.All() {
		if len(places) == 0 || places[len(places)-1] != s.NetNSName {
			places = append(places, s.NetNSName)
		}
	}
	if want := []string{client, node, coredns, node, client}; !slices.Equal(places, want) {
		t.Errorf("the way is %v, expected %v", places, want)
	}
}
