package api

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/dnstrace/dnstrace/tracer/history"
)

// Config is what the server tells of.
type Config struct {
	Version  string
	Started  time.Time
	History  *history.History
	Counters func() map[string]uint64 // called for every status; may be nil
	Now      func() time.Time         // nil: time.Now
	// Health returns why the tracer does not do its work, nil if it does; it may be nil.
	Health func() error
	// Messages returns what is kept of the messages with an id from and to a client;
	// nil: none is kept.
	Messages func(client netip.AddrPort, id uint16) []Message
	// Patience is how long a reader may take nothing; 0: a minute.
	Patience time.Duration
}

// NewHandler returns the API as an HTTP handler.
func NewHandler(c Config) http.Handler {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Patience == 0 {
		c.Patience = patience
	}
	s := &server{Config: c, readers: make(chan struct{}, maxReaders)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/traces", s.traces)
	mux.HandleFunc("GET /v1/messages", s.messages)
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.health)
	return mux
}

type server struct {
	Config
	readers chan struct{} // holds one for each reader of traces
}

func (s *server) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{Version: s.Version, Uptime: s.Now().Sub(s.Started).Seconds(), Counters: map[string]uint64{}, Reach: s.reach()}
	if s.Counters != nil {
		st.Counters = s.Counters()
	}
	w.Header().Set("Content-Type", "application/json")
	// The only error is that the client went away.
	_ = json.NewEncoder(w).Encode(st)
}

// health answers both probes: the API is there only while every hook is attached.
func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if s.Health != nil {
		if err := s.Health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	_, _ = w.Write([]byte("ok\n")) // as for status
}

func (s *server) messages(w http.ResponseWriter, r *http.Request) {
	client, err := netip.ParseAddrPort(r.FormValue("client"))
	if err != nil {
		http.Error(w, "client: expected an address and port such as 10.244.0.4:50202", http.StatusBadRequest)
		return
	}
	id, err := strconv.ParseUint(r.FormValue("id"), 10, 16)
	if err != nil {
		http.Error(w, "id: expected a number from 0 to 65535", http.StatusBadRequest)
		return
	}
	found := []Message{}
	if s.Messages != nil {
		found = append(found, s.Messages(client, uint16(id))...)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(found) // as above
}

func (s *server) traces(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	default:
		http.Error(w, fmt.Sprintf("%d readers are at it already: end one of them", maxReaders), http.StatusServiceUnavailable)
		return
	}
	now := s.Now()
	var since time.Time
	switch {
	case q.Since > 0:
		since = now.Add(-q.Since)
	case q.Follow:
		since = now.Add(time.Nanosecond)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := lineWriter{w: w, patience: s.Patience}
	if !q.Follow {
		found := s.History.Query(since, q.Limit)
		s.setReach(w)
		out.lines(found)
		return
	}
	backlog, sub := s.History.Follow(since, q.Limit, followQueue)
	defer sub.Close()
	s.setReach(w)
	out.lines(backlog)
	out.flush()
	s.follow(r.Context(), &out, sub)
}

// reach returns how far back the history goes: not beyond the start.
func (s *server) reach() history.Reach {
	reach := s.History.Reach()
	for _, at := range []*time.Time{&reach.Ordinary, &reach.Notable} {
		if at.Before(s.Started) {
			*at = s.Started
		}
		*at = at.UTC()
	}
	return reach
}

// setReach says how far back an answer goes that was just taken from the history: asked
// for later, it never promises too much.
func (s *server) setReach(w http.ResponseWriter) {
	b, err := json.Marshal(s.reach())
	if err == nil { // it holds times and text, which always can be encoded
		w.Header().Set(reachHeader, string(b))
	}
}

// follow sends traces until the client goes away or the server stops.
func (s *server) follow(ctx context.Context, out *lineWriter, sub *history.Subscription) {
	for out.err == nil {
		line, lost, err := sub.Next(ctx)
		if err != nil {
			return
		}
		out.line(line)
		if lost > 0 {
			b, err := json.Marshal(lostLine{Lost: lost})
			if err != nil {
				return
			}
			out.line(b)
		}
		out.flush()
	}
}

// lineWriter writes lines until the first error, which is also a reader that takes
// nothing for as long as there is patience.
type lineWriter struct {
	w        http.ResponseWriter
	patience time.Duration
	since    time.Time // when the deadline was set
	err      error
}

func (l *lineWriter) lines(lines iter.Seq[[]byte]) {
	for line := range lines {
		if l.line(line); l.err != nil {
			return
		}
	}
}

func (l *lineWriter) line(line []byte) {
	// Not for each line: many go out in one moment.
	if now := time.Now(); l.err == nil && now.Sub(l.since) > l.patience/10 {
		l.since = now
		l.err = http.NewResponseController(l.w).SetWriteDeadline(now.Add(l.patience))
	}
	if l.err == nil {
		_, l.err = l.w.Write(line)
	}
	if l.err == nil {
		_, l.err = l.w.Write([]byte{'\n'})
	}
}

func (l *lineWriter) flush() {
	if l.err == nil {
		l.err = http.NewResponseController(l.w).Flush()
	}
}

// parseQuery reads the parameters of a request; the error says which is wrong.
func parseQuery(v url.Values) (Query, error) {
	var q Query
	var err error
	for name, values := range v {
		value := values[len(values)-1]
		switch name {
		case "since":
			q.Since, err = time.ParseDuration(value)
			if err != nil || q.Since < 0 {
				return q, fmt.Errorf("since: expected a duration such as 5m, got %q", value)
			}
		case "limit":
			q.Limit, err = strconv.Atoi(value)
			if err != nil || q.Limit < 0 {
				return q, fmt.Errorf("limit: expected a number from 0, got %q", value)
			}
		case "follow":
			q.Follow, err = strconv.ParseBool(value)
			if err != nil {
				return q, fmt.Errorf("follow: expected true or false, got %q", value)
			}
		default:
			return q, fmt.Errorf("%s: unknown parameter; there are since, limit and follow", name)
		}
	}
	return q, nil
}

// values is the inverse of parseQuery.
func (q Query) values() url.Values {
	v := url.Values{}
	if q.Since > 0 {
		v.Set("since", q.Since.String())
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	return v
}
