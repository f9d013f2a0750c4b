package dnstrace

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A client over HTTP/3 comes in UDP datagrams; both ways to put the question
// into a request, twice over one connection.
func TestHTTPS3(t *testing.T) {
	cert, key, config := certificate(t)
	s := start(t, `https3://.:0 {
		tls `+cert+` `+key+`
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		whoami
	}`)
	c := newHTTPS3(t, config)
	for n, method := range []string{http.MethodPost, http.MethodGet} {
		m := new(dns.Msg).SetQuestion("Example.org.", dns.TypeA)
		m.Id = 0 // RFC 8484, section 4.1
		answer := c.ask(t, method, s.addr, m)
		q := s.query(n + 1)
		checkTransport(t, s, q, "udp", m.Id, c.local)
		if q.RCode != "NOERROR" || *q.ResponseSize != answer.Len() || q.RequestSize != m.Len() || hops(q.Hops) != "whoami" {
			t.Errorf("%s: %s with %d bytes for %d, hops %s", method, q.RCode, *q.ResponseSize, q.RequestSize, hops(q.Hops))
		}
		checkTimes(t, q)
	}
}

// https3Client asks over one QUIC connection.
type https3Client struct {
	transport *http3.Transport
	local     net.Addr // of the connection, once there is one
}

func newHTTPS3(t *testing.T, config *tls.Config) *https3Client {
	c := new(https3Client)
	c.transport = &http3.Transport{TLSClientConfig: config, Dial: func(ctx context.Context, addr string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		conn, err := quic.DialAddr(ctx, addr, config, qc)
		if err == nil {
			c.local = conn.LocalAddr()
		}
		return conn, err
	}}
	t.Cleanup(func() {
		if err := c.transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *https3Client) ask(t *testing.T, method, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	var req *http.Request
	var err error
	if method == http.MethodGet {
		req, err = http.NewRequestWithContext(t.Context(), method, "https://"+addr+"/dns-query?dns="+base64.RawURLEncoding.EncodeToString(pack(t, m)), http.NoBody)
	} else {
		req, err = http.NewRequestWithContext(t.Context(), method, "https://"+addr+"/dns-query", bytes.NewReader(pack(t, m)))
	}
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/dns-message")
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", method, resp.Status, body)
	}
	return unpack(t, body)
}
