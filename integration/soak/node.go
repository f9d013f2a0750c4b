package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// suffix of all names that are asked for: what else is asked on the node is not traced.
var suffix = fmt.Sprintf(".soak%d.test.", os.Getpid())

// Names that do not resolve, each for its own reason.
var (
	silentName  = "silent" + suffix
	droppedName = "dropped" + suffix
	failedZone  = "failed" + suffix
	absentZone  = "absent" + suffix
)

// corednsMetrics is where CoreDNS serves its metrics, in its own namespace.
const corednsMetrics = "127.0.0.1:9153"

// observed are the namespaces that are there all the time.
var observed = []string{lab.Node, lab.CoreDNS, lab.Upstream, "client-a", "client-b"}

// retention is short, so that the memory of finished traces is full soon.
const retention = "30s"

// afterwards is how long the last lookups may take to become traces: the tracer's
// timeout, CoreDNS's own patience, and what the tracer then waits for.
const afterwards = 25 * time.Second

// node is what soaks.
type node struct {
	*lab.Lab
	coredns, tracer *lab.Process
	metrics         string // address of the tracer's
	ledger          *ledger
	read            chan error // of the ledger's reader
}

// newNode builds the lab, and starts both binaries. The caller must close it.
func newNode(cfg config) (n *node, err error) {
	coredns, err := filepath.Abs(cfg.coredns)
	if err != nil {
		return nil, err
	}
	dnstrace, err := filepath.Abs(cfg.dnstrace)
	if err != nil {
		return nil, err
	}
	l, err := lab.Build(lab.Config{CoreDNS: coredns, Dnstrace: dnstrace, Upstreams: 1})
	if err != nil {
		return nil, err
	}
	n = &node{Lab: l, ledger: newLedger(), read: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	l.Upstream(0).Set(silentName, lab.Behaviour{Silent: true})
	l.Upstream(0).Set(failedZone, lab.Behaviour{Rcode: 2})
	l.Upstream(0).Set(absentZone, lab.Behaviour{Rcode: 3})
	if _, err := l.DropAt(lab.NodeForward, lab.Match{Messages: lab.Queries, Name: droppedName}); err != nil {
		return nil, err
	}
	if err := n.startTracer(); err != nil {
		return nil, err
	}
	n.coredns, err = l.StartCoreDNS(fmt.Sprintf(`. {
    errors
    prometheus %s
    dnstrace {
        output unix %s
    }
    cache 5 {
        success 500
        denial 500
    }
    forward . %s {
        max_fails 0
    }
}
`, corednsMetrics, l.RecordSocket(), l.Upstream(0).V4()))
	return n, err
}

// startTracer starts the tracer with its records going into a pipe that the ledger
// reads: ten minutes of them would fill a disk.
func (n *node) startTracer() error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	if n.metrics, err = freeAddress(); err != nil {
		return errors.Join(err, in.Close())
	}
	args := []string{"--record", "trace", "--output", "stdout", "--metrics", n.metrics, "--history", retention,
		"--filter", fmt.Sprintf("qname endsWith %q", suffix)}
	// What it counts as lost is then lost of this run, whatever else the machine asks.
	// Of pods that come and go it sees what passes the node.
	for _, host := range observed {
		args = append(args, "--netns", n.Host(host).Netns)
	}
	n.tracer, err = n.StartTracerTo(out, args...)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	go func() {
		n.read <- errors.Join(n.ledger.readTraces(in), in.Close())
	}()
	return nil
}

// settle waits for the last traces, ends the tracer, and returns what was counted.
func (n *node) settle(ctx context.Context) (counted, error) {
	select {
	case <-ctx.Done():
		return counted{}, ctx.Err()
	case <-time.After(afterwards):
	}
	c, err := n.count(ctx)
	if err := errors.Join(err, n.tracer.Stop()); err != nil {
		return c, err
	}
	return c, <-n.read
}

func (n *node) close() error { return errors.Join(n.Close(), os.RemoveAll(n.Dir())) }
