package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/dnstrace/dnstrace/integration/figures"
	"github.com/dnstrace/dnstrace/integration/lab"
)

const (
	sinkRole = "sink"
	// sinkPort is where the echo pod takes what it is sent, and forgets it: the port of
	// RFC 863.
	sinkPort = 9
	bulkTurn = time.Second
	// bulkBlock is what iperf3 writes at a time.
	bulkBlock = 128 << 10
)

// serveSink reads what comes, until it is killed. A connection that is done is
// answered with one byte, so that its sender knows that all has arrived.
func serveSink() error {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: sinkPort})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stderr, readyLine); err != nil {
		return err
	}
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, bulkBlock)
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, buf); err == nil {
				_, _ = conn.Write(buf[:1]) // a sender that has gone waits for nothing
			}
		}()
	}
}

// measureBulk compares what one TCP connection carries from pod to pod, over two veth
// pairs and the bridge between, as iperf3 does.
func measureBulk(ctx context.Context, r *rig, s schedule) ([]figures.Figure, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("path of this program: %w", err)
	}
	sink, err := r.Start(lab.Spec{Name: sinkRole, Host: echoPod, Path: self, Args: []string{sinkRole}, Ready: lab.ReadyLine(readyLine)})
	if err != nil {
		return nil, err
	}
	var all figures.Figures
	for n := range s.all() {
		rates := make(map[string]float64)
		for i := range variants {
			name := variants[(i+n)%len(variants)]
			if rates[name], err = r.bulkTurn(ctx, name); err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", name, err), sink.Stop())
			}
		}
		for _, name := range variants {
			if name == off {
				all.Add("one connection", off, "Gbit/s", rates[off], figures.Goal{})
				continue
			}
			all.Add("one connection", name, "÷ off", rates[name]/rates[off], figures.Goal{})
		}
	}
	return all.Sorted(variants), sink.Stop()
}

// bulkTurn sends for a while with an observer on, and returns Gbit/s.
func (r *rig) bulkTurn(ctx context.Context, name string) (rate float64, err error) {
	o, err := r.observe(name)
	if err != nil {
		return 0, err
	}
	rate, err = r.bulk()
	if err != nil {
		return 0, o.abandon(err)
	}
	if err := pause(ctx, settle); err != nil {
		return 0, o.abandon(err)
	}
	return rate, o.stop()
}

func (r *rig) bulk() (rate float64, err error) {
	var conn *net.TCPConn
	err = r.Host(clientPod).Do(func() (err error) {
		conn, err = net.DialTCP("tcp4", nil, &net.TCPAddr{IP: r.Host(echoPod).V4.AsSlice(), Port: sinkPort})
		return err
	})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begin := time.Now()
	if err := conn.SetDeadline(begin.Add(bulkTurn + answerTimeout)); err != nil {
		return 0, err
	}
	block, sent := make([]byte, bulkBlock), 0
	for time.Since(begin) < bulkTurn {
		n, err := conn.Write(block)
		if err != nil {
			return 0, err
		}
		sent += n
	}
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := conn.Read(block); err != nil { // all has arrived
		return 0, err
	}
	return float64(sent) * 8 / 1e9 / time.Since(begin).Seconds(), nil
}
