package dnstrace

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/pb"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// supported reports whether this CoreDNS can run a Corefile: the tests run
// against older ones too.
func supported(t *testing.T, corefile string) bool {
	t.Helper()
	s := &server{t: t, records: filepath.Join(t.TempDir(), "records.jsonl")}
	input := caddy.CaddyfileInput{Contents: []byte(s.expand(corefile)), Filepath: "Corefile", ServerTypeName: "dns"}
	return caddy.ValidateAndExecuteDirectives(input, nil, true) == nil
}

// forwardOption returns an option of forward, or nothing where it has none such.
func forwardOption(t *testing.T, option string) string {
	t.Helper()
	if !supported(t, ".:0 {\n forward . 127.0.0.1 {\n "+option+"\n }\n }") {
		return ""
	}
	return option
}

// certificate makes a certificate for dns.test and 127.0.0.1, which is its own
// authority, and returns its files and a client that trusts it.
func certificate(t *testing.T) (cert, key string, client *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dns.test"},
		DNSNames: []string{"dns.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public})
	for path, content := range map[string][]byte{cert: certPEM, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client = &tls.Config{ServerName: "dns.test", RootCAs: x509.NewCertPool()}
	client.RootCAs.AppendCertsFromPEM(certPEM)
	return cert, key, client
}

// Every way for a client to reach CoreDNS.
func TestTransports(t *testing.T) {
	cert, key, client := certificate(t)
	secure := "tls " + cert + " " + key
	for _, tc := range []struct {
		name, scheme, tls, protocol string
		ask                         func(*testing.T, string, *tls.Config, *dns.Msg) (*dns.Msg, net.Addr)
	}{
		{"UDP", "", "", "udp", askDNS("udp")},
		{"TCP", "", "", "tcp", askDNS("tcp")},
		{"DoT", "tls://", secure, "tcp", askDNS("tcp-tls")},
		{"DoH", "https://", secure, "tcp", askDoH},
		{"DoQ", "quic://", secure, "udp", askDoQ},
		{"gRPC", "grpc://", secure, "tcp", askGRPC},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, tc.scheme+`.:0 {
				`+tc.tls+`
				bind 127.0.0.1
				dnstrace {
					output file $RECORDS
				}
				whoami
			}`)
			if tc.name == "TCP" {
				s.addr = s.instance.Servers()[0].Addr().String()
			}
			m := new(dns.Msg).SetQuestion("Example.org.", dns.TypeA)
			if tc.name == "DoQ" {
				m.Id = 0 // RFC 9250, section 4.2.1
			}
			answer, local := tc.ask(t, s.addr, client, m)
			q := s.query(1)
			checkTransport(t, s, q, tc.protocol, m.Id, local)
			if q.RCode != "NOERROR" || *q.ResponseSize != answer.Len() || q.RequestSize != m.Len() || q.AnsweredBy != "whoami" {
				t.Errorf("%s by %s, %d bytes for %d", q.RCode, q.AnsweredBy, *q.ResponseSize, q.RequestSize)
			}
		})
	}
}

// checkTransport checks who asked whom, and the name that observers agree on.
func checkTransport(t *testing.T, s *server, q *trace.Query, protocol string, id uint16, local net.Addr) {
	t.Helper()
	server := netip.MustParseAddrPort(s.addr)
	if q.Protocol != protocol || q.ServerIP != server.Addr() || q.ServerPort != server.Port() {
		t.Errorf("%s to %s port %d, want %s", q.Protocol, q.ServerIP, q.ServerPort, server)
	}
	// A socket that is not connected does not know its address.
	client, _ := address(local)
	if q.ClientIP != server.Addr() || q.ClientPort != client.Port() || q.ID != id {
		t.Errorf("client %s port %d id %d, want %s id %d", q.ClientIP, q.ClientPort, q.ID, client, id)
	}
	transport := uint8(trace.TransportUDP)
	if protocol == "tcp" {
		transport = trace.TransportTCP
	}
	flow := trace.NewFlow(transport, addrPort(q), id, dns.TypeA, dns.ClassINET, []byte("\x07example\x03org\x00"))
	if q.Flow != flow {
		t.Errorf("flow %s, want %s", q.Flow, flow)
	}
}

func askDNS(network string) func(*testing.T, string, *tls.Config, *dns.Msg) (*dns.Msg, net.Addr) {
	return func(t *testing.T, addr string, config *tls.Config, m *dns.Msg) (*dns.Msg, net.Addr) {
		c := &dns.Client{Net: network, TLSConfig: config}
		conn, err := c.Dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		answer, _, err := c.ExchangeWithConn(m, conn)
		if err != nil {
			t.Fatal(err)
		}
		return answer, conn.LocalAddr()
	}
}

func askDoH(t *testing.T, addr string, config *tls.Config, m *dns.Msg) (answer *dns.Msg, local net.Addr) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { local = info.Conn.LocalAddr() }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace),
		http.MethodPost, "https://"+addr+"/dns-query", bytes.NewReader(pack(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/dns-message")
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, body), local
}

func askDoQ(t *testing.T, addr string, config *tls.Config, m *dns.Msg) (*dns.Msg, net.Addr) {
	config = config.Clone()
	config.NextProtos = []string{"doq"}
	conn, err := quic.DialAddr(t.Context(), addr, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.CloseWithError(0, ""); err != nil {
			t.Error(err)
		}
	}()
	stream, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(dnsserver.AddPrefix(pack(t, m))); err != nil {
		t.Fatal(err)
	}
	stream.Close() // the end of the query
	body, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, body[2:]), conn.LocalAddr()
}

func askGRPC(t *testing.T, addr string, config *tls.Config, m *dns.Msg) (answer *dns.Msg, local net.Addr) {
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			local = conn.LocalAddr()
		}
		return conn, err
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := pb.NewDnsServiceClient(conn).Query(t.Context(), &pb.DnsPacket{Msg: pack(t, m)})
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, reply.GetMsg()), local
}

func pack(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func unpack(t *testing.T, wire []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatal(err)
	}
	return m
}
