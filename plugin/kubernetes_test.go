package dnstrace

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// clusterObjects is what the API server of the tests has, by path.
var clusterObjects = map[string]string{
	"/api/v1/namespaces": `{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
		{"metadata":{"name":"demo","resourceVersion":"1"}}]}`,
	"/api/v1/services": `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
		{"metadata":{"name":"web","namespace":"demo","resourceVersion":"1"},
			"spec":{"type":"ClusterIP","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}},
		{"metadata":{"name":"out","namespace":"demo","resourceVersion":"1"},
			"spec":{"type":"ExternalName","externalName":"target.example.net"}}]}`,
	"/api/v1/pods": `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
		{"metadata":{"name":"client","namespace":"demo","resourceVersion":"1"},"status":{"phase":"Running","podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}]}`,
	"/apis/discovery.k8s.io/v1/endpointslices": `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1",
		"metadata":{"resourceVersion":"1"},"items":[]}`,
}

// cluster is an API server that lists its objects, and has no news.
func cluster(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, known := clusterObjects[r.URL.Path]
		switch {
		case !known:
			http.NotFound(w, r)
		case r.URL.Query().Get("sendInitialEvents") != "":
			http.Error(w, "an API server without streaming lists", http.StatusUnprocessableEntity)
		case r.URL.Query().Get("watch") != "":
			w.Header().Set("Content-Type", "application/json")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, list)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// Both plugins in one CoreDNS: to set up kubernetes a second time, while an
// earlier one ends, is a race on the logger of its client.
func TestKubernetes(t *testing.T) {
	up, api := upstream(t, answerA), cluster(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		errors
		dnstrace {
			output file $RECORDS
		}
		cache
		kubernetes cluster.local {
			endpoint `+api+`
		}
		forward . `+up+`
	}
	auto.local:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		autopath @kubernetes
		kubernetes auto.local {
			endpoint `+api+`
			pods verified
		}
		forward . `+up+`
	}`)
	testKubernetes(t, s, up)
	testAutopath(t, s, up)
}

func testKubernetes(t *testing.T, s *server, up string) {
	t.Helper()
	for n, tc := range []struct{ name, rcode, by, hops, attempts, asked string }{
		{"web.demo.svc.cluster.local.", "NOERROR", "kubernetes", "cache kubernetes<cache", "", ""},
		{"no.demo.svc.cluster.local.", "NXDOMAIN", "kubernetes", "cache kubernetes<cache", "", ""},
		{"example.net.", "NOERROR", "forward", "cache kubernetes<cache forward<kubernetes", "1 ok " + up, "example.net. A"},
		// An ExternalName is chased through the server.
		{"out.demo.svc.cluster.local.", "NOERROR", "kubernetes", "cache kubernetes<cache dnstrace<kubernetes " +
			"cache<dnstrace kubernetes<cache forward<kubernetes", "1 ok " + up, "target.example.net. A*"},
	} {
		answer := s.ask(tc.name, dns.TypeA)
		q := s.query(n + 1)
		if marked, _ := questionsOf(&q.DNS, q.Upstreams); strings.Join(marked, ", ") != tc.asked {
			t.Errorf("%s: asked for %v, want %s", tc.name, marked, tc.asked)
		}
		if q.RCode != tc.rcode || q.AnsweredBy != tc.by || hops(q.Hops) != tc.hops || attempts(q.Upstreams) != tc.attempts {
			t.Errorf("%s: %s by %s, hops %s, attempts %s\n%s", tc.name, q.RCode, q.AnsweredBy, hops(q.Hops), attempts(q.Upstreams), answer)
		}
		if q.Cache != trace.CacheMiss || *q.ResponseSize != answer.Len() {
			t.Errorf("%s: cache %s, %d bytes, the answer has %d", tc.name, q.Cache, *q.ResponseSize, answer.Len())
		}
	}
}

// autopath walks the search path of a pod inside CoreDNS: one query, and a hop
// for every try.
func testAutopath(t *testing.T, s *server, up string) {
	t.Helper()
	before := len(readRecords(t, s.records))
	for n, tc := range []struct {
		name, hops, attempts string
	}{
		{"web.demo.svc.auto.local.", "autopath kubernetes<autopath", ""},
		// Three of the cluster's, and then the first of this machine's.
		{"www.example.net.demo.svc.auto.local.", "autopath" + strings.Repeat(" kubernetes<autopath", 4) + " forward<kubernetes", "1 ok " + up},
	} {
		answer := s.ask(tc.name, dns.TypeA)
		q := s.query(before + n + 1)
		if marked, _ := questionsOf(&q.DNS, q.Upstreams); tc.attempts != "" && (len(marked) != 1 || !strings.HasPrefix(marked[0], "www.example.net.") || strings.Contains(marked[0], "auto.local")) {
			t.Errorf("asked for %v", marked)
		}
		if q.QName != tc.name || hops(q.Hops) != tc.hops || q.AnsweredBy != "autopath" || q.RCode != "NOERROR" || q.Cache != trace.CacheNone || attempts(q.Upstreams) != tc.attempts {
			t.Errorf("%s by %s: %s, cache %s, hops %s, attempts %s\n%s", q.QName, q.AnsweredBy, q.RCode, q.Cache, hops(q.Hops), attempts(q.Upstreams), answer)
		}
	}
}
