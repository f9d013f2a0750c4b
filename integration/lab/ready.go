package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// readyPoll is how often a process is asked whether it is ready.
const readyPoll = 10 * time.Millisecond

// Ready tells whether a process is ready, or why it is not yet.
type Ready func(ctx context.Context, p *Process) error

// ReadyLine is ready when this run of the process has written text to standard
// output or standard error.
func ReadyLine(text string) Ready {
	return func(_ context.Context, p *Process) error {
		if strings.Contains(p.Stdout()[p.earlier[0]:], text) || strings.Contains(p.Stderr()[p.earlier[1]:], text) {
			return nil
		}
		return fmt.Errorf("it has not written %q", text)
	}
}

// ReadyListening is ready when a UDP and a TCP socket in the process's
// namespace listen on port. It puts no packet on the wire, which a tracer would
// report; what arrives from then on waits in the sockets.
func ReadyListening(port uint16) Ready {
	return func(_ context.Context, p *Process) error {
		udp, err := listens(p.Pid(), "udp", port)
		if err != nil {
			return err
		}
		tcp, err := listens(p.Pid(), "tcp", port)
		if err != nil {
			return err
		}
		if !udp || !tcp {
			return fmt.Errorf("it does not listen on port %d (UDP: %v, TCP: %v)", port, udp, tcp)
		}
		return nil
	}
}

// ReadyAnswer is ready when server answers a query for name, asked from the
// process's own host, over UDP and TCP, with whatever code.
func ReadyAnswer(server netip.AddrPort, name string) Ready {
	return func(ctx context.Context, p *Process) error {
		for _, network := range []string{"udp", "tcp"} {
			_, err := p.lab.Client(p.Host).Exchange(ctx, Query{
				Name: name, Network: network, Server: server, Timeout: 500 * time.Millisecond,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// ReadyHTTP is ready when the host's own namespace gets a 200 for url.
func ReadyHTTP(url string) Ready {
	return func(ctx context.Context, _ *Process) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s says %s", url, resp.Status)
		}
		return nil
	}
}

// FreePorts returns ports of loopback, in the host's own namespace, that nobody listens
// on over TCP.
func FreePorts(tb testing.TB, n int) []int {
	tb.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// waitReady waits for the current run to be ready, to end, or to be late.
func (p *Process) waitReady() error {
	if p.Ready == nil {
		return nil
	}
	timeout := p.ReadyTimeout
	if timeout == 0 {
		timeout = readyTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		err := p.Ready(ctx, p)
		if err == nil {
			return nil
		}
		select {
		case <-p.Exited():
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("not ready after %v: %w", timeout, err)
		case <-time.After(readyPoll):
		}
	}
}

// listens tells whether a socket in the network namespace of a process is open
// on port: a UDP socket without a peer, or a listening TCP one.
func listens(pid int, network string, port uint16) (bool, error) {
	const idle, listening = "07", "0A" // states in /proc/PID/net/*
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			return false, err
		}
		defer f.Close()
		suffix := fmt.Sprintf(":%04X", port)
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// sl local_address rem_address st …
			fields := strings.Fields(lines.Text())
			if len(fields) > 3 && strings.HasSuffix(fields[1], suffix) && (fields[3] == listening || network == "udp" && fields[3] == idle) {
				return true, nil
			}
		}
	}
	return false, nil
}
