package dnstrace

import (
	"context"
	"net/netip"
	"strings"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// What became of the TRACEPARENT of a query.
const (
	optionAccepted  = "accepted"
	optionIgnored   = "ignored"   // the client is not one that we accept it from
	optionMalformed = "malformed" // it is, but the option cannot be read
)

// networks is a list of networks that are trusted with something.
type networks []netip.Prefix

func (n networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("") // no prefix contains an address with a zone
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (n networks) String() string {
	var all []string
	for _, p := range n {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}

// parseNetworks reads the networks after a property; expected says what else
// may stand there.
func parseNetworks(c *caddy.Controller, property string, args []string, expected string) (networks, error) {
	var n networks
	for _, arg := range args {
		p, err := netip.ParsePrefix(arg)
		if err != nil {
			return nil, c.Errf("%s %s: expected %snetworks such as 10.0.0.0/8 or fd00::/8", property, arg, expected)
		}
		if p.Addr().Is4In6() {
			// The addresses that it is compared with are written as IPv4.
			if p.Bits() < 96 {
				return nil, c.Errf("%s %s: expected IPv4 networks in their own form, such as 10.0.0.0/8", property, arg)
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		n = append(n, p.Masked())
	}
	return n, nil
}

func (d *Dnstrace) parseAccept(c *caddy.Controller, args []string) (err error) {
	switch {
	case d.accept != nil:
		return c.Errf("accept is already set to %s: expected it once, with all its networks", d.accept)
	case len(args) == 0:
		return c.Errf("accept from whom? expected networks such as 10.0.0.0/8 or fd00::/8")
	}
	d.accept, err = parseNetworks(c, "accept", args, "")
	return err
}

// incoming reads the trace context of a query of client. The result is empty
// where it has none.
func (d *Dnstrace) incoming(client netip.Addr, r *dns.Msg) (t trace.Traceparent, result string) {
	t, found, err := trace.FindTraceparent(r, d.optionCode)
	switch {
	case !found:
		return t, ""
	case !d.accept.contain(client):
		return trace.Traceparent{}, optionIgnored
	case err != nil:
		return t, optionMalformed
	}
	return t, optionAccepted
}

// receive takes the trace context out of a query, and counts it: it ends here,
// whoever sent it. CoreDNS would forward it with the other options, and an
// upstream that accepts ours would take a stranger's for ours.
func (d *Dnstrace) receive(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *dns.Msg {
	if !hasOption(r, d.optionCode) {
		return r
	}
	client, _ := address(w.RemoteAddr())
	_, result := d.incoming(client.Addr(), r)
	if result == "" {
		result = optionMalformed // in an OPT beside the one that counts
	}
	optionsSeen.WithLabelValues(d.metricsOf(ctx).with(result)...).Inc()
	if signed(r) {
		return r
	}
	return withoutOption(r, d.optionCode)
}
