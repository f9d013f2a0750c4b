package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/trace/recordfile"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/pcap"
)

// Around an exchange: a message with its id and client that was captured outside of
// it is of another, whose client used the same port.
const (
	beforeExchange = time.Second
	afterExchange  = 15 * time.Second // a late response, after timeout and retries
)

// packets are those of the lookups that explain shows; nil if --pcap is not given.
type packets struct {
	to   io.Writer
	file *os.File // nil: standard output
	all  *pcap.Packets
}

func (o *explainOptions) newPackets(cmd *cobra.Command) (*packets, error) {
	if o.pcap == "" {
		return nil, nil
	}
	p := &packets{to: cmd.OutOrStdout()}
	if o.pcap != "-" {
		var err error
		if p.file, err = recordfile.Create(o.pcap); err != nil {
			return nil, fmt.Errorf("--pcap: %w; or write to standard output: --pcap - > FILE", err)
		}
		p.to = p.file
	}
	var captured pcap.Captured
	if !o.isFile() && o.loki == "" {
		captured = fromTracer(cmd.Context(), api.NewClient(o.api))
	}
	p.all = pcap.New(captured)
	return p, nil
}

func (p *packets) add(group []kept) error {
	if p == nil {
		return nil
	}
	traces, err := tracesOf(group)
	if err != nil {
		return err
	}
	for _, t := range traces {
		if err := p.all.Add(t); err != nil {
			return fmt.Errorf("--pcap: %w", err)
		}
	}
	return nil
}

func (p *packets) write() error {
	if p == nil {
		return nil
	}
	err := p.all.Write(p.to)
	if p.file != nil {
		err = errors.Join(err, p.file.Close())
		p.file = nil
	}
	if err != nil {
		return fmt.Errorf("--pcap: %w", err)
	}
	return nil
}

func (p *packets) close() {
	if p == nil {
		return
	}
	p.all.Close()
	if p.file != nil {
		_ = p.file.Close() // the error before it is reported
	}
}

// fromTracer asks the tracer for what it still has of the messages. Where it has
// none, or is of a version that keeps none, they are rebuilt from the records.
func fromTracer(ctx context.Context, c *api.Client) pcap.Captured {
	return func(ex *trace.Exchange, response bool) []pcap.Message {
		all, err := c.Messages(ctx, netip.AddrPortFrom(ex.ClientIP, ex.ClientPort), ex.ID)
		if err != nil {
			return nil
		}
		var found []pcap.Message
		for _, m := range all {
			if after := m.Time.Sub(ex.Time); m.Response == response && after > -beforeExchange && after < afterExchange {
				found = append(found, pcap.Message{Time: m.Time, Wire: m.Wire, Size: m.Size})
			}
		}
		return found
	}
}
