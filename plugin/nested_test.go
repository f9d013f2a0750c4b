package dnstrace

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clog "log"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/go-json-experiment/json"
	"github.com/miekg/dns"
)

func addrPort(q *trace.Query) netip.AddrPort { return netip.AddrPortFrom(q.ClientIP, q.ClientPort) }

const zoneFile = `$ORIGIN example.org.
@ 60 IN SOA ns.example.org. admin.example.org. 1 7200 3600 1209600 60
@ 60 IN NS ns.example.org.
www 60 IN CNAME target.example.net.
`

// A CNAME that file chases through the server is part of the same query.
func TestNestedLookup(t *testing.T) {
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, []byte(zoneFile), 0o600); err != nil {
		t.Fatal(err)
	}
	down, up := refusing(t), upstream(t, answerA)
	s := start(t, `.:0 {
		bind 127.0.0.1
		metadata
		errors
		dnstrace {
			output file $RECORDS
		}
		cache
		file `+zone+` example.org
		forward . `+down+` `+up+` {
			policy sequential
		}
	}`)
	answer := s.ask("www.example.org.", dns.TypeA)
	if len(answer.Answer) != 2 {
		t.Fatalf("the CNAME was not chased: %v", answer)
	}
	q := s.query(1)
	if got := hops(q.Hops); got != "cache file<cache errors<file dnstrace<errors cache<dnstrace file<cache forward<file" {
		t.Errorf("hops: %s", got)
	}
	if q.QName != "www.example.org." || q.AnsweredBy != "file" || q.Cache != trace.CacheMiss {
		t.Errorf("%s answered by %s, cache %s", q.QName, q.AnsweredBy, q.Cache)
	}
	if got := attempts(q.Upstreams); got != "1 error "+down+", 2 ok "+up {
		t.Errorf("attempts: %s", got)
	}
}

// Where dnstrace is the first plugin, nothing before it marks a nested lookup.
func TestNestedLookupFailure(t *testing.T) {
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, []byte(zoneFile), 0o600); err != nil {
		t.Fatal(err)
	}
	down := refusing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		file `+zone+` example.org
		forward . `+down+` {
			max_connect_attempts 2
		}
	}`)
	s.ask("www.example.org.", dns.TypeA)
	q := s.query(1)
	if got := hops(q.Hops); got != "file dnstrace<file file<dnstrace forward<file" {
		t.Errorf("hops: %s", got)
	}
	if got := attempts(q.Upstreams); got != "1 error "+down+", 2 error "+down || !strings.Contains(q.Upstreams[1].Error, "refused") {
		t.Errorf("attempts: %s: %+v", got, q.Upstreams)
	}
}

func TestMetadataInLog(t *testing.T) {
	var out syncBuffer
	clog.SetOutput(&out)
	defer clog.SetOutput(os.Stderr)
	s := start(t, `.:0 {
		bind 127.0.0.1
		metadata
		log . "trace={/dnstrace/trace_id} span={/dnstrace/span_id}"
		dnstrace {
			output file $RECORDS
		}
		whoami
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	want := "trace=" + q.TraceID.String() + " span=" + q.SpanID.String()
	if !strings.Contains(out.String(), want) {
		t.Errorf("the log has no %s:\n%s", want, out.String())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// The trace plugin gets the same tree with dnstrace as without.
func TestTracePlugin(t *testing.T) {
	with, without := zipkinTree(t, "dnstrace {\n output file $RECORDS\n}"), zipkinTree(t, "")
	// Without dnstrace its hop is missing, and what was below it moves up.
	if want := strings.ReplaceAll(with, "dnstrace>cache", "servedns>cache"); strings.Replace(want, "servedns>dnstrace ", "", 1) != without {
		t.Errorf("with dnstrace:\n%s\nwithout:\n%s", with, without)
	}
	if !strings.Contains(with, "forward>connect") {
		t.Errorf("no attempt in %s", with)
	}
}

func zipkinTree(t *testing.T, directive string) string {
	var mu sync.Mutex
	var spans []struct{ ID, ParentID, Name string }
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var batch []struct{ ID, ParentID, Name string }
		if err := json.UnmarshalRead(r.Body, &batch, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Error(err)
		}
		spans = append(spans, batch...)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer collector.Close()
	s := start(t, `.:0 {
		bind 127.0.0.1
		trace zipkin `+collector.URL+`/api/v2/spans {
			zipkin_max_batch_size 1
		}
		`+directive+`
		cache
		forward . `+upstream(t, answerA)+`
	}`)
	s.ask("example.org.", dns.TypeA)
	if directive != "" {
		if q := s.query(1); hops(q.Hops) != "cache forward<cache" || len(q.Upstreams) != 1 {
			t.Errorf("hops: %s", hops(q.Hops))
		}
	}
	want := 4
	if directive != "" {
		want = 5
	}
	for range 300 {
		mu.Lock()
		n := len(spans)
		mu.Unlock()
		if n == want {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	names := map[string]string{}
	for _, sp := range spans {
		names[sp.ID] = sp.Name
	}
	var tree []string
	for _, name := range []string{"servedns", "dnstrace", "cache", "forward", "connect"} {
		for _, sp := range spans {
			if sp.Name == name {
				tree = append(tree, names[sp.ParentID]+">"+name)
			}
		}
	}
	return strings.Join(tree, " ")
}

// A server on the wildcard address does not know which of its addresses a
// datagram was sent to.
func TestWildcardAddress(t *testing.T) {
	s := start(t, `.:0 {
		dnstrace {
			output file $RECORDS
		}
		whoami
	}`)
	s.ask("example.org.", dns.TypeA)
	q := s.query(1)
	if q.ServerIP.IsValid() || q.ServerPort == 0 {
		t.Errorf("server %s port %d", q.ServerIP, q.ServerPort)
	}
}
