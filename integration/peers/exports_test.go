//go:build peers

package peers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// exportAddr is where the peers send what they log, each on its own loopback.
const exportAddr = "127.0.0.1:4242"

// traceData is the field of a PBDNSMessage with the spans of OTLP: openTelemetryData in
// dnsmessage.proto of PowerDNS.
const traceData = 30

// export is what a peer tells of one query.
type export struct {
	request []byte // as OTLP sends it
	spans   []*tracepb.Span
}

// exports receives what a peer logs: messages with two bytes of length before each.
type exports struct {
	mu    sync.Mutex
	all   []export
	conns []net.Conn
	err   error
}

// listen receives what a host's peer exports, until the test ends.
func listen(t *testing.T, h *lab.Host) *exports {
	t.Helper()
	e := new(exports)
	var listener net.Listener
	if err := h.Do(func() (err error) {
		listener, err = net.Listen("tcp", exportAddr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			e.mu.Lock()
			e.conns = append(e.conns, conn)
			e.mu.Unlock()
			running.Go(func() { e.read(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		e.mu.Lock()
		for _, conn := range e.conns {
			conn.Close()
		}
		err := e.err
		e.mu.Unlock()
		running.Wait()
		if err != nil {
			t.Errorf("what %s exports: %v", h.Name, err)
		}
	})
	return e
}

// read takes messages from a connection until its end.
func (e *exports) read(conn net.Conn) {
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, data); err != nil {
			return
		}
		x, err := parseExport(data)
		e.mu.Lock()
		if err != nil {
			e.err = err
		} else {
			e.all = append(e.all, x)
		}
		e.mu.Unlock()
	}
}

// parseExport finds the spans in a message.
func parseExport(data []byte) (export, error) {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return export{}, protowire.ParseError(n)
		}
		data = data[n:]
		if number != traceData || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
				return export{}, protowire.ParseError(n)
			}
			data = data[n:]
			continue
		}
		request, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return export{}, protowire.ParseError(n)
		}
		var traces tracepb.TracesData // on the wire as the request that holds it
		if err := proto.Unmarshal(request, &traces); err != nil {
			return export{}, err
		}
		x := export{request: request}
		for _, resource := range traces.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				x.spans = append(x.spans, scope.Spans...)
			}
		}
		return x, nil
	}
	return export{}, errors.New("no spans in a message")
}

// of returns what was exported of a name so far.
func (e *exports) of(name string) []export {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []export
	for _, x := range e.all {
		if x.asks(name) {
			found = append(found, x)
		}
	}
	return found
}

// asks tells whether a span says that the query is for a name.
func (x export) asks(name string) bool {
	for _, s := range x.spans {
		for _, a := range s.Attributes {
			if a.Key == "query.qname" && dns.CanonicalName(strings.ToLower(a.Value.GetStringValue())) == name {
				return true
			}
		}
	}
	return false
}

// exported waits for what a peer exports of a name.
func (r *rig) exported(e *exports, name string) export {
	r.t.Helper()
	var found []export
	r.wait("export of "+name, func() bool {
		found = e.of(name)
		return len(found) > 0
	})
	return found[0]
}

// span is the exported span that an option names, nil where there is none.
func (x export) span(p trace.Traceparent) *tracepb.Span {
	return x.find(func(s *tracepb.Span) bool {
		return bytes.Equal(s.TraceId, p.TraceID[:]) && bytes.Equal(s.SpanId, p.SpanID[:])
	})
}

// below is an exported span directly below the one that an option names.
func (x export) below(p trace.Traceparent) *tracepb.Span {
	return x.find(func(s *tracepb.Span) bool {
		return bytes.Equal(s.TraceId, p.TraceID[:]) && bytes.Equal(s.ParentSpanId, p.SpanID[:])
	})
}

func (x export) find(is func(*tracepb.Span) bool) *tracepb.Span {
	if i := slices.IndexFunc(x.spans, is); i >= 0 {
		return x.spans[i]
	}
	return nil
}
