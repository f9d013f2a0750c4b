package dnstrace

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
)

// answering is a plugin that answers at once.
type answering struct{ m *dns.Msg }

func (a answering) Name() string { return "answering" }

func (a answering) ServeDNS(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
	return dns.RcodeSuccess, w.WriteMsg(a.m)
}

// passing is a plugin that hands on.
type passing struct{ next plugin.Handler }

func (p passing) Name() string { return "passing" }

func (p passing) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure(p.Name(), p.next, ctx, w, r)
}

// discarding is a client that costs nothing.
type discarding struct{ dns.ResponseWriter }

var loopback = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}

func (discarding) LocalAddr() net.Addr     { return loopback }
func (discarding) RemoteAddr() net.Addr    { return loopback }
func (discarding) WriteMsg(*dns.Msg) error { return nil }

// BenchmarkServeDNS measures what the plugin adds to a query, with one plugin
// after it and with another in between, against those plugins alone.
func BenchmarkServeDNS(b *testing.B) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	m := new(dns.Msg).SetReply(r)
	one := answering{m}
	two := passing{one}
	for _, bc := range []struct {
		name   string
		record bool
		next   plugin.Handler
	}{
		{"vanilla/hops=1", false, one},
		{"dnstrace/hops=1", true, one},
		{"vanilla/hops=2", false, two},
		{"dnstrace/hops=2", true, two},
	} {
		b.Run(bc.name, func(b *testing.B) {
			handler := bc.next
			if bc.record {
				o, err := acquire(outputConfig{outputFile, filepath.Join(b.TempDir(), "records.jsonl")}, maxBuffer)
				if err != nil {
					b.Fatal(err)
				}
				defer o.release()
				zones := []string{"."}
				handler = &Dnstrace{Next: bc.next, zones: zones, serverZones: zones, outputs: []*output{o}, chain: readChain(nil)}
			}
			ctx, w := context.Background(), discarding{}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := handler.ServeDNS(ctx, w, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppendRecord measures what the writer's goroutine does for a record.
func BenchmarkAppendRecord(b *testing.B) {
	var rec *recording
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	zones := []string{"."}
	d := &Dnstrace{zones: zones, serverZones: zones, chain: readChain(nil), Next: passing{answering{new(dns.Msg).SetReply(r)}}}
	keep := &output{queue: newQueue(1, nil)}
	d.outputs = []*output{keep}
	if _, err := d.ServeDNS(context.Background(), discarding{}, r); err != nil {
		b.Fatal(err)
	}
	rec = keep.queue.pending[0]
	var build builder
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line, _ = build.appendRecord(line[:0], rec)
	}
	b.SetBytes(int64(len(line)))
}
