package integration

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// The tracer alone still gives exchanges, with the upstream leg inferred.
func TestTracerAlone(t *testing.T) {
	for _, server := range []string{"coredns", "dnsmasq"} {
		t.Run(server, func(t *testing.T) {
			r := tracerOnly(t)
			var err error
			if server == "coredns" {
				_, err = r.StartCoreDNS(corefile(r.Lab, ""))
			} else {
				_, err = r.StartDnsmasq([]netip.Addr{r.Upstream(0).V4().Addr()})
			}
			if err != nil {
				t.Fatal(err)
			}
			r.answered(lab.Query{Name: "alone.test."})
			tr := r.trace("alone.test.")
			if tr.Exchange == nil || tr.Exchange.ClientIP != r.Host("client-a").V4 || tr.Outcome != trace.OutcomeAnswered || tr.Query != nil {
				t.Fatalf("exchange %+v, query %v", tr.Exchange, tr.Query != nil)
			}
			if len(tr.Upstreams) != 1 || tr.Upstreams[0].Join != trace.JoinInferred || tr.Upstreams[0].Attempt != nil {
				t.Fatalf("upstreams %+v; gaps %v", tr.Upstreams, tr.Gaps)
			}
			got := r.Upstream(0).Received("alone.test.")
			if up := tr.Upstreams[0].Exchange; len(got) != 1 || up.ID != got[0].ID || up.Client == nil || up.Client.Process != server {
				t.Errorf("upstream exchange %+v, the upstream got %+v", up, got)
			}
			if len(tr.Diagnosis) != 0 {
				t.Errorf("findings %v", findings(tr))
			}
			if n := len(r.traces("alone.test.", 1)); n != 1 {
				t.Errorf("%d traces of one lookup", n)
			}
			if server == "coredns" {
				(&faultRig{rig: r}).keep("tracer-alone", "alone.test")
			}
		})
	}
}

// A server that keeps no records and takes a query without answering: what is
// known is where it was seen last.
func TestNoResponseSeen(t *testing.T) {
	r := &faultRig{rig: tracerOnly(t, "--timeout", "2s")}
	server, err := r.Serve(lab.CoreDNS, netip.AddrPortFrom(r.Host(lab.CoreDNS).V4, 53))
	if err != nil {
		t.Fatal(err)
	}
	server.Set(".", lab.Behaviour{Silent: true})
	r.ask(lab.Query{Name: "mute.test.", Timeout: time.Second})
	tr := r.trace("mute.test.")
	wantAll(t, evidence(t, tr, "no-response-seen"), "the query was last seen", r.Host(lab.CoreDNS).Netns, "no drop")
	if tr.Outcome != trace.OutcomeUnanswered {
		t.Errorf("outcome %s", tr.Outcome)
	}
	r.keep("no-response-seen", "mute.test")
}

// The plugin alone gives query records that are complete in themselves.
func TestPluginAlone(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	file := filepath.Join(r.Dir(), "queries.jsonl")
	server, err := r.StartCoreDNS(corefile(r.Lab, "dnstrace {\n output file "+file+"\n}"))
	if err != nil {
		t.Fatal(err)
	}
	res := r.answered(lab.Query{Name: "plugin.test."})
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	records := readRecords(t, file)
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	q, ok := records[0].(*trace.Query)
	if !ok || q.QName != "plugin.test." || q.ClientIP != res.Local.Addr() || q.ClientPort != res.Local.Port() || q.ID != res.ID ||
		q.RCode != "NOERROR" || q.Cache != trace.CacheMiss || q.AnsweredBy != "forward" || len(q.Hops) == 0 ||
		len(q.Upstreams) != 1 || q.Upstreams[0].Address != r.Upstream(0).V4().String() || q.DNS.Duration == nil {
		t.Errorf("record %+v", records[0])
	}
	out, err := r.Dnstrace(context.Background(), "explain", "--from", file, "plugin.test")
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "plugin.test.", "forward", "miss", r.Upstream(0).V4().String(), "not observed")
}
