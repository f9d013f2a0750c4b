package dnstrace

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/coredns/coredns/plugin"
	anyplugin "github.com/coredns/coredns/plugin/any"
	"github.com/miekg/dns"
)

// answering is a plugin that answers at once.
type answering struct{ m *dns.Msg }

func (a answering) Name() string { return "answering" }

func (a answering) ServeDNS(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
	return dns.RcodeSuccess, w.WriteMsg(a.m)
}

// discarding is a client that costs nothing.
type discarding struct{ dns.ResponseWriter }

var loopback = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}

func (discarding) LocalAddr() net.Addr     { return loopback }
func (discarding) RemoteAddr() net.Addr    { return loopback }
func (discarding) WriteMsg(*dns.Msg) error { return nil }

// traced is dnstrace before next. Its records go to a file; one in a hundred,
// or all of them.
func traced(tb testing.TB, next plugin.Handler, sampled bool) *Dnstrace {
	tb.Helper()
	o, err := acquire(outputConfig{outputFile, filepath.Join(tb.TempDir(), "records.jsonl")}, defaultBuffer)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(o.release)
	zones := []string{"."}
	d := &Dnstrace{Next: next, zones: zones, serverZones: zones, outputs: []*output{o}}
	d.prepareChain()
	d.chain.refreshes = false // which is not known of the plugins of a test
	d.policy.slow = defaultSlow
	if sampled {
		rate := 0.01
		d.policy.sample = &rate
	}
	return d
}

// BenchmarkServeDNS measures what the plugin adds to a query that an ordinary plugin
// answers, as cache does, that another one answers, and that another one behind an
// ordinary one answers, against those plugins alone.
func BenchmarkServeDNS(b *testing.B) {
	other := answering{new(dns.Msg)}
	ordinary := func() plugin.Handler { return anyplugin.Any{Next: other} }
	for _, bc := range []struct {
		name    string
		handler plugin.Handler
		qtype   uint16
	}{
		{"vanilla/ordinary", ordinary(), dns.TypeANY},
		{"sampled/ordinary", traced(b, ordinary(), true), dns.TypeANY},
		{"dnstrace/ordinary", traced(b, ordinary(), false), dns.TypeANY},
		{"vanilla/other", other, dns.TypeA},
		{"sampled/other", traced(b, other, true), dns.TypeA},
		{"dnstrace/other", traced(b, other, false), dns.TypeA},
		{"vanilla/behind", ordinary(), dns.TypeA},
		{"sampled/behind", traced(b, ordinary(), true), dns.TypeA},
		{"dnstrace/behind", traced(b, ordinary(), false), dns.TypeA},
	} {
		r := new(dns.Msg).SetQuestion("example.org.", bc.qtype)
		b.Run(bc.name, func(b *testing.B) {
			ctx, w := context.Background(), discarding{}
			b.ReportAllocs()
			for b.Loop() {
				r.Id++ // so that the trace ids differ
				if _, err := bc.handler.ServeDNS(ctx, w, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppendRecord measures what is done to make a record of a recording.
func BenchmarkAppendRecord(b *testing.B) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	zones := []string{"."}
	d := &Dnstrace{zones: zones, serverZones: zones, Next: anyplugin.Any{Next: answering{new(dns.Msg).SetReply(r)}}}
	d.prepareChain()
	d.chain.refreshes = true // keeps the recording for us
	f := d.begin(context.Background(), discarding{}, r)
	rec := f.first.rec
	rcode, err := d.Next.ServeDNS(&f.first.ctx, &f.writer, r)
	f.finish(rcode, err)
	var build builder
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		build.load(rec)
		line, _ = build.appendRecord(line[:0], nil)
	}
	b.SetBytes(int64(len(line)))
}
