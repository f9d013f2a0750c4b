package metrics

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// How long a rendered answer is reused: as long as the counters are old anyway, and so long
// that rendering takes a twentieth of a processor at most. With all clients distinguished it
// takes 10 ms.
const (
	keepAnswer = 200 * time.Millisecond
	keepTimes  = 20 // as long as it took
)

// protobuf is what Prometheus accepts where it wants native histograms.
const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// answers serves what is registered. A client may ask as often as it likes: a request costs
// little more than sending the answer.
type answers struct {
	of  http.Handler
	now func() time.Time

	mu   sync.Mutex // held while one is put together: others wait for that
	kept map[form]*answer
}

// form is how an answer is written: the only ways there are, whatever is asked for.
type form struct{ protobuf, gzip bool }

// answer is a rendered answer. It implements http.ResponseWriter for rendering, and does not
// change afterwards.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
	until  time.Time
}

func newAnswers(registry *prometheus.Registry) *answers {
	return &answers{of: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), now: time.Now, kept: map[form]*answer{}}
}

// ServeHTTP implements http.Handler.
func (s *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := s.answer(formOf(r.Header))
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if value := a.header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // who went away is the only error
}

// formOf returns the form that fits what a request accepts.
func formOf(h http.Header) form {
	f := form{protobuf: expfmt.NegotiateAccept(h, expfmt.DefaultAcceptedFormats()...).FormatType() == expfmt.TypeProtoDelim}
	for accepted := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.ReplaceAll(accepted, " ", ""), ";")
		none := quality != "" && strings.Trim(strings.TrimPrefix(quality, "q="), "0.") == "" // RFC 9110, section 12.4.2
		f.gzip = f.gzip || name == "gzip" && !none
	}
	return f
}

func (s *answers) answer(f form) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	begin := s.now()
	if a := s.kept[f]; a != nil && begin.Before(a.until) {
		return a
	}
	r := &http.Request{Method: http.MethodGet, Header: http.Header{}}
	if f.protobuf {
		r.Header.Set("Accept", protobuf)
	}
	if f.gzip {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	a := &answer{header: http.Header{}, status: http.StatusOK}
	s.of.ServeHTTP(a, r)
	end := s.now()
	a.until = end.Add(max(keepAnswer, keepTimes*end.Sub(begin)))
	s.kept[f] = a
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
