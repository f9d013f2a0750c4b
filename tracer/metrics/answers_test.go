package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/tracer/pipeline"
)

// A client that asks again and again, each time in another way, gets an answer that was
// rendered before: it costs the tracer only the sending.
func TestScrapesWithoutEnd(t *testing.T) {
	made := 0
	c := sample()
	counters := c.Counters()
	c.Counters = func() *pipeline.Counters { made++; return counters }
	now := time.Unix(1, 0)
	h := newAnswers(newRegistry(c, NewLookups(Options{})))
	h.now, made = func() time.Time { return now }, 0
	ask := func(accept, encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		r.Header.Set("Accept-Encoding", encoding)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for i := range 100 {
		for _, accept := range []string{"", "*/*", "text/plain", "application/json", "application/openmetrics-text;version=1.0.0", protobuf, protobuf + ";q=0.1,text/plain", fmt.Sprint("x/", i), fmt.Sprint(protobuf, ";escaping=", i)} {
			for _, encoding := range []string{"", "gzip", "zstd", "identity", "gzip;q=0", "gzip; q=0.000", "br, gzip;q=0.5", fmt.Sprint("x", i)} {
				resp := ask(accept, encoding)
				body := resp.Body.String()
				if resp.Code != http.StatusOK || body == "" {
					t.Fatalf("%q, %q: %d, %d bytes", accept, encoding, resp.Code, len(body))
				}
				plain := strings.Contains(body, "dnstrace_events_total 18")
				isText := !strings.Contains(resp.Header().Get("Content-Type"), "protobuf") && resp.Header().Get("Content-Encoding") == ""
				if isText != plain || resp.Header().Get("Content-Encoding") != "" && !strings.HasSuffix(encoding, "gzip") && encoding != "br, gzip;q=0.5" {
					t.Errorf("%q, %q: %v", accept, encoding, resp.Header())
				}
			}
		}
	}
	if made > 4 {
		t.Errorf("it is put together %d times at one time", made)
	}
	// What changes is there soon.
	changed := *counters
	changed.Events = 19
	counters, now = &changed, now.Add(time.Minute)
	if body := ask("", "").Body.String(); !strings.Contains(body, "dnstrace_events_total 19") {
		t.Errorf("%.200s", body)
	}
}
