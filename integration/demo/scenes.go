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
	"github.com/dnstrace/dnstrace/integration/stage"
	"github.com/dnstrace/dnstrace/trace"
)

// clientTimeout lets the client see the failover's answer.
const clientTimeout = 4 * time.Second

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
		fmt.Fprintf(out, "client-a: %s after %s\n", dns.RcodeToString[r.Rcode()], trace.Seconds(r.Latency))
	case errors.Is(err, os.ErrDeadlineExceeded):
		fmt.Fprintf(out, "client-a: no answer within %v\n", clientTimeout)
	default:
		return err
	}
	id, err := stage.TraceOf(ctx, l, r)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "$ dnstrace explain %v\n", id)
	text, err := l.Dnstrace(ctx, "explain", "--api", l.APISocket(), id.String())
	fmt.Fprintf(out, "\n%s\n", strings.TrimRight(text, "\n"))
	return err
}
