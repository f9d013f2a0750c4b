package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// TraceOf waits until the tracer has written the trace of a lookup, and returns
// its id.
func TraceOf(ctx context.Context, l *lab.Lab, r lab.Result) (trace.TraceID, error) {
	flow, err := flowOf(r)
	if err != nil {
		return trace.TraceID{}, err
	}
	var id trace.TraceID
	err = wait(ctx, l, fmt.Sprintf("a trace with flow %v", flow), func(all []*trace.Trace) bool {
		for _, t := range all {
			if t.Flow == flow {
				id = t.TraceID
				return true
			}
		}
		return false
	})
	return id, err
}

// Traces waits until the tracer has written that many traces.
func Traces(ctx context.Context, l *lab.Lab, n int) error {
	return wait(ctx, l, fmt.Sprintf("%d traces", n), func(all []*trace.Trace) bool { return len(all) >= n })
}

// wait reads what the tracer has written until it is enough.
func wait(ctx context.Context, l *lab.Lab, what string, enough func([]*trace.Trace) bool) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		all, err := ReadTraces(l.RecordFile())
		if err != nil || enough(all) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the tracer wrote %d traces, and not %s: %w", len(all), what, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// flowOf is the name that every observer of the lookup gives it.
func flowOf(r lab.Result) (trace.Flow, error) {
	wire := make([]byte, 256)
	n, err := dns.PackDomainName(r.Name, wire, 0, nil, false)
	if err != nil {
		return trace.Flow{}, err
	}
	return trace.NewFlow(trace.TransportUDP, r.Local, r.ID, r.Type, dns.ClassINET, wire[:n]), nil
}

// ReadTraces reads the traces of a file of records, whose last line may not be complete
// yet. No file is none.
func ReadTraces(file string) ([]*trace.Trace, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []*trace.Trace
	for records := trace.NewReader(f); ; {
		record, _, err := records.Read()
		var line *trace.LineError
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case errors.As(err, &line):
			continue
		case err != nil:
			return nil, err
		}
		if t, ok := record.(*trace.Trace); ok {
			all = append(all, t)
		}
	}
}
