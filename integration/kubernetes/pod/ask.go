package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// ask sends one query to a server, from a port of its own or, if it is 0, from any,
// and prints what came back.
func ask(ctx context.Context, port, server, name string) error {
	local, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%s: expected a port: %w", port, err)
	}
	client := dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{Port: int(local)}}, Timeout: patience}
	r, took, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), server)
	if err != nil {
		fmt.Println(name, err)
		return nil
	}
	fmt.Println(name, dns.RcodeToString[r.Rcode], len(r.Answer), took.Round(time.Microsecond))
	return nil
}
