package examples_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// servers are what the examples ask, on loopback.
type servers struct {
	plain string // over UDP and TCP
	dot   string
	ca    string // a file: the authority that dot's certificate is from
	api   string // of Kubernetes
}

func startServers(t *testing.T) servers {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := servers{plain: packets.LocalAddr().String(), api: startAPI(t)}
	listener, err := net.Listen("tcp", s.plain)
	if err != nil {
		t.Fatal(err)
	}
	config, ca := certificate(t, "dns.quad9.net")
	secure, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	s.dot, s.ca = secure.Addr().String(), ca
	for _, srv := range []*dns.Server{{PacketConn: packets}, {Listener: listener}, {Listener: secure}} {
		serve(t, srv)
	}
	return s
}

// serve answers every question with one A record.
func serve(t *testing.T, srv *dns.Server) {
	t.Helper()
	srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN A 192.0.2.1", r.Question[0].Name))
		if err != nil {
			t.Error(err)
		}
		m.Answer = []dns.RR{rr}
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})
	up := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(up) }
	go func() {
		if err := srv.ActivateAndServe(); err != nil {
			t.Error(err)
		}
	}()
	<-up
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}

// certificate makes a certificate for name, and a file to trust it by.
func certificate(t *testing.T, name string) (config *tls.Config, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}, ca
}

// startAPI runs an API server of Kubernetes without any objects.
func startAPI(t *testing.T) string {
	t.Helper()
	kinds := map[string]string{
		"/api/v1/namespaces": `"NamespaceList","apiVersion":"v1"`, "/api/v1/services": `"ServiceList","apiVersion":"v1"`,
		"/apis/discovery.k8s.io/v1/endpointslices": `"EndpointSliceList","apiVersion":"discovery.k8s.io/v1"`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		kind, known := kinds[r.URL.Path]
		switch {
		case !known:
			http.NotFound(w, r)
		case r.URL.Query().Get("sendInitialEvents") != "":
			http.Error(w, "an API server without streaming lists", http.StatusUnprocessableEntity)
		case r.URL.Query().Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprintf(w, `{"kind":%s,"metadata":{"resourceVersion":"1"},"items":[]}`, kind)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}
