package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

const (
	// tracerTimeout is longer than the 2 s which forward waits for an upstream,
	// so that only what is really lost counts as unanswered.
	tracerTimeout = 3 * time.Second
	// clientTimeout lets the client see the failover's answer.
	clientTimeout = 4 * time.Second
	// traceTimeout is how long a finished trace may take to be written.
	traceTimeout = tracerTimeout + 12*time.Second
)

const (
	cachedName   = "www.example.com."
	failoverName = "failover.example.com."
	blockedName  = "blocked.example.com."
)

// scene is one lookup to show.
type scene struct {
	headline string
	name     string
	// prepare sets up what the lookup is to meet; nil for nothing.
	prepare func() (undo func(), err error)
}

func scenes(l *lab.Lab) []scene {
	return []scene{
		{
			headline: "A name that nobody asked for before: CoreDNS asks its upstream",
			name:     cachedName,
		},
		{
			headline: "The same name again: CoreDNS answers from its cache",
			name:     cachedName,
		},
		{
			headline: "The first upstream is silent: CoreDNS tries the second",
			name:     failoverName,
			prepare: func() (func(), error) {
				return l.SilentUpstream(0, failoverName), nil
			},
		},
		{
			headline: "A firewall rule on the node (FORWARD, DROP) meets the query",
			name:     blockedName,
			prepare: func() (func(), error) {
				return l.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Name: blockedName})
			},
		},
	}
}

// show makes the lookup, waits until its trace is finished, and explains it.
func (s scene) show(ctx context.Context, out io.Writer, l *lab.Lab) error {
	if s.prepare != nil {
		undo, err := s.prepare()
		if err != nil {
			return err
		}
		defer undo()
	}
	r, err := l.Client("client-a").Exchange(ctx, lab.Query{Name: s.name, Timeout: clientTimeout})
	switch {
	case err == nil:
		fmt.Fprintf(out, "client-a: %s after %v\n", dns.RcodeToString[r.Rcode()], r.Latency.Round(10*time.Microsecond))
	case errors.Is(err, os.ErrDeadlineExceeded):
		fmt.Fprintf(out, "client-a: no answer within %v\n", clientTimeout)
	default:
		return err
	}
	id, err := waitForTrace(ctx, l.RecordFile(), r)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "$ dnstrace explain %v\n", id)
	text, err := l.Dnstrace(ctx, "explain", "--api", l.APISocket(), id.String())
	fmt.Fprintf(out, "\n%s\n", strings.TrimRight(text, "\n"))
	return err
}

// waitForTrace waits until the tracer has written the trace of a lookup.
func waitForTrace(ctx context.Context, file string, r lab.Result) (trace.TraceID, error) {
	flow, err := flowOf(r)
	if err != nil {
		return trace.TraceID{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, traceTimeout)
	defer cancel()
	for {
		id, found, err := findTrace(file, flow)
		if err != nil || found {
			return id, err
		}
		select {
		case <-ctx.Done():
			return id, fmt.Errorf("the tracer wrote no trace with flow %v: %w", flow, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// flowOf is the name that every observer of the lookup gives it.
func flowOf(r lab.Result) (trace.Flow, error) {
	const udp = 17
	wire := make([]byte, 256)
	n, err := dns.PackDomainName(r.Name, wire, 0, nil, false)
	if err != nil {
		return trace.Flow{}, err
	}
	return trace.NewFlow(udp, r.Local, r.ID, r.Type, dns.ClassINET, wire[:n]), nil
}

// findTrace looks for a trace in a file of records, whose last line may not be
// complete yet.
func findTrace(file string, flow trace.Flow) (id trace.TraceID, found bool, err error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, err
	}
	defer f.Close()
	for records := trace.NewReader(f); ; {
		record, _, err := records.Read()
		var line *trace.LineError
		switch {
		case errors.Is(err, io.EOF):
			return id, false, nil
		case errors.As(err, &line):
			continue
		case err != nil:
			return id, false, err
		}
		if t, ok := record.(*trace.Trace); ok && t.Flow == flow {
			return t.TraceID, true, nil
		}
	}
}
