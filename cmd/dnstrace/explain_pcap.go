package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/pcap"
)

// Around an exchange: a message with its id and client that was captured outside of
// it is of another, whose client used the same port.
const (
	beforeExchange = time.Second
	afterExchange  = 15 * time.Second // a late response, after timeout and retries
)

// writePackets writes the packets of lookups where --pcap says.
func (o *explainOptions) writePackets(cmd *cobra.Command, groups [][]kept) error {
	traces, err := tracesOf(slices.Concat(groups...))
	if err != nil {
		return err
	}
	var captured pcap.Captured
	if !o.isFile() && o.loki == "" {
		captured = fromTracer(cmd.Context(), api.NewClient(o.api))
	}
	if o.pcap == "-" {
		return o.writeTo(cmd.OutOrStdout(), traces, captured)
	}
	f, err := os.OpenFile(o.pcap, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("--pcap: %w", err)
	}
	return errors.Join(o.writeTo(f, traces, captured), f.Close())
}

func (o *explainOptions) writeTo(w io.Writer, traces []*trace.Trace, captured pcap.Captured) error {
	if err := pcap.Write(w, traces, captured); err != nil {
		return fmt.Errorf("--pcap %s: %w", o.pcap, err)
	}
	return nil
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
