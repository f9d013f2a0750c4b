package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// untilFailure is longer than CoreDNS tries an upstream that is silent: its SERVFAIL is
// waited for.
const untilFailure = 12 * time.Second

// together makes lookups at once, each for the A records of a name from a socket of its
// own, and prints a line for each when all have ended: the name and what came of it.
func together(ctx context.Context, lookups []string) error {
	lines := make([]string, len(lookups))
	var group sync.WaitGroup
	for i, l := range lookups {
		parts := strings.SplitN(l, "/", 3)
		if len(parts) != 3 {
			return fmt.Errorf("%s: expected NETWORK/SERVER/NAME", l)
		}
		group.Go(func() { lines[i] = parts[2] + " " + became(ctx, parts[0], parts[1], parts[2]) })
	}
	group.Wait()
	fmt.Println(strings.Join(lines, "\n"))
	return nil
}

// became makes one lookup and tells what came of it: the code of the response and its
// addresses, "silence", or the error of the socket.
func became(ctx context.Context, network, server, name string) string {
	client := dns.Client{Net: network, Timeout: untilFailure}
	r, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), server)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silence"
	case err != nil:
		return err.Error()
	}
	result := dns.RcodeToString[r.Rcode]
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			result += " " + a.A.String()
		}
	}
	return result
}
