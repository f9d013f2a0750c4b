package otlp

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
)

// DNS gives the address of a collector, and not how to call it (the service config of gRPC,
// in a TXT record): no such query is sent.
func TestNoServiceConfigFromDNS(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []uint16
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		asked = append(asked, r.Question[0].Qtype)
		mu.Unlock()
		m := new(dns.Msg).SetReply(r)
		if r.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	defer func() { _ = s.Shutdown() }()
	usual := net.DefaultResolver
	defer func() { net.DefaultResolver = usual }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	e, err := parseEndpoint("grpc://collector.test:1")
	if err != nil {
		t.Fatal(err)
	}
	env, err := readEnvironment(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	transport, err := newGRPCTransport(e, logsSignal, env, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = transport.close() }()
	if err := transport.send(t.Context(), &collogspb.ExportLogsServiceRequest{}, &collogspb.ExportLogsServiceResponse{}); err == nil {
		t.Error("somebody answered")
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(asked, dns.TypeA) || slices.Contains(asked, dns.TypeTXT) {
		t.Errorf("types %v are asked for", asked)
	}
}
