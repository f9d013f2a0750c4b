package dnstrace

import (
	"context"
	"net"
	"path/filepath"
	"slices"
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

// traced is dnstrace before others and next. Its records go to a file; one in a hundred,
// or all of them.
func traced(tb testing.TB, next plugin.Handler, sampled bool, others ...plugin.Plugin) *Dnstrace {
	tb.Helper()
	o := newFileOutput(tb)
	zones := []string{"."}
	d := &Dnstrace{zones: zones, serverZones: zones, outputs: []*output{o}, sample: 1, slow: defaultSlow}
	if sampled {
		d.sample = 0.01
	}
	chained(d, next, others...)
	return d
}

// newFileOutput is an output to a file of its own.
func newFileOutput(tb testing.TB) *output {
	c := outputConfig{outputFile, filepath.Join(tb.TempDir(), "records.jsonl")}
	s, err := openSink(c)
	if err != nil {
		tb.Fatal(err)
	}
	o := newOutput(c, s, defaultBuffer)
	tb.Cleanup(o.flush)
	return o
}

// chained puts others and next behind d, as CoreDNS does.
func chained(d *Dnstrace, next plugin.Handler, others ...plugin.Plugin) {
	d.Next = d.chain(append(slices.Clone(others), func(plugin.Handler) plugin.Handler { return next }))
}

// beforeAny is an ordinary plugin, which answers questions for ANY.
func beforeAny(next plugin.Handler) plugin.Handler { return anyplugin.Any{Next: next} }

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
		{"sampled/ordinary", traced(b, other, true, beforeAny), dns.TypeANY},
		{"dnstrace/ordinary", traced(b, other, false, beforeAny), dns.TypeANY},
		{"vanilla/other", other, dns.TypeA},
		{"sampled/other", traced(b, other, true), dns.TypeA},
		{"dnstrace/other", traced(b, other, false), dns.TypeA},
		{"vanilla/behind", ordinary(), dns.TypeA},
		{"sampled/behind", traced(b, other, true, beforeAny), dns.TypeA},
		{"dnstrace/behind", traced(b, other, false, beforeAny), dns.TypeA},
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

// recorded returns the record of a query that is over.
func recorded(t testing.TB, d *Dnstrace, r *dns.Msg) *record {
	t.Helper()
	q := d.begin(context.Background(), discarding{}, r)
	rcode, err := d.Next.ServeDNS(&q.top, &q.writer, r)
	q.end(r, rcode, err)
	return &q.record
}

// BenchmarkEncode measures what a writer does to make a line of a record.
func BenchmarkEncode(b *testing.B) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	rec := recorded(b, traced(b, answering{new(dns.Msg).SetReply(r)}, false, beforeAny), r)
	var e encoder
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = e.append(line[:0], rec)
	}
	b.SetBytes(int64(len(line)))
}
