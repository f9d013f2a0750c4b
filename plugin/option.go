package dnstrace

import (
	"context"
	"net/netip"
	"slices"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// What became of the TRACEPARENT of a query.
const (
	optionAccepted  = "accepted"
	optionIgnored   = "ignored"   // accept does not name the client
	optionMalformed = "malformed" // accept names the client, but the option cannot be read
)

// incoming reads the trace context of a query of client.
func (d *Dnstrace) incoming(client netip.Addr, r *dns.Msg) (t trace.Traceparent, result string) {
	t, found, err := trace.FindTraceparent(r, d.optionCode)
	switch {
	case found && !d.accept.contain(client):
		return t, optionIgnored
	case found && err == nil:
		return t, optionAccepted
	}
	return t, optionMalformed // also where it is in a second OPT, and so not found
}

// receive removes the trace context from a query, whoever sent it, and counts it. CoreDNS would forward it with the
// other options, and an upstream that accepts this server's would accept a stranger's too.
func (d *Dnstrace) receive(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *dns.Msg {
	if !trace.HasTraceparent(r, d.optionCode) {
		return r
	}
	client, _ := address(w.RemoteAddr())
	_, result := d.incoming(client.Addr(), r)
	d.metricsOf(ctx).options.WithLabelValues(result).Inc()
	return trace.WithoutTraceparent(r, d.optionCode)
}

// withoutOPT returns m without OPT: m itself if it has none, otherwise a copy.
func withoutOPT(m *dns.Msg) *dns.Msg {
	if m.IsEdns0() == nil {
		return m
	}
	stripped := *m
	stripped.Extra = slices.DeleteFunc(slices.Clone(m.Extra), isOPT)
	if stripped.Rcode > 0xf {
		// Its upper bits were in the OPT (RFC 6891, section 6.1.3).
		stripped.Rcode = dns.RcodeServerFailure
	}
	return &stripped
}

func isOPT(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT }

// forward chooses the upstream, behind the cache, which copies the message. So the hop directly before forward stamps
// a query: it passes on a copy of the message, which has the option or not, as the upstream of each attempt demands.

// stampSize is the UDP size that a stamped query advertises if its client sent no OPT, as resolvers do to avoid
// fragments (DNS flag day 2020). The server truncates the answer to what the client can take.
const stampSize = 1232

// off reports whether no upstream gets the option.
func (p *stampPolicy) off() bool { return !p.all && len(p.to) == 0 }

// allows reports whether an upstream, "address:port", gets the option. One of another form is in no network.
func (p *stampPolicy) allows(peer string) bool {
	if p.all {
		return true
	}
	ap, err := netip.ParseAddrPort(peer)
	return err == nil && p.to.contain(ap.Addr())
}

// stamps reports whether r may be stamped.
func (d *Dnstrace) stamps(r *dns.Msg) bool {
	return !d.stamp.off() && r.Opcode == dns.OpcodeQuery && !trace.Signed(r)
}

// stampsAll reports whether all upstreams of a grpc are in the list of stamp: then attempts without an address are
// stamped.
func (d *Dnstrace) stampsAll(addrs []string) bool {
	if d.stamp.off() {
		return false
	}
	for _, addr := range addrs {
		if !d.stamp.allows(addr) {
			log.Warningf("a query of grpc is stamped only if CoreDNS says whom it is for, because its upstream %s is not among those of stamp", addr)
			return false
		}
	}
	return len(addrs) > 0
}

// outgoing is a query on its way to upstreams.
type outgoing struct {
	before  *hop           // of the plugin that asks upstreams
	writer  responseWriter // removes from the answer what stamping adds
	msg     dns.Msg
	plain   []dns.RR // the additional section without the option
	stamped []dns.RR // the additional section with it
	opt     dns.OPT
	option  dns.EDNS0_LOCAL
	data    [27]byte
}

func newOutgoing(h *hop, w dns.ResponseWriter, r *dns.Msg) *outgoing {
	// receive removed the client's option, but another plugin may have added one.
	code := h.plugin.optionCode
	r = trace.WithoutTraceparent(r, code)
	o := &outgoing{before: h, msg: *r, plain: r.Extra, writer: responseWriter{ResponseWriter: w, code: code}}
	if opt := r.IsEdns0(); opt != nil {
		o.opt = *opt
	} else {
		o.writer.noOPT = true
		o.opt.Hdr = dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}
		o.opt.SetUDPSize(stampSize)
	}
	o.option.Code = code
	o.opt.Option = append(slices.Clip(o.opt.Option), &o.option)
	o.stamped = append(slices.DeleteFunc(slices.Clone(r.Extra), isOPT), &o.opt)
	return o
}

// prepare stamps the message if s, a span behind the hop, is an attempt whose upstream is allowed, and else removes
// the option.
func (o *outgoing) prepare(s *span) {
	o.msg.Extra = o.plain
	if t, ok := s.traceparent(o.allows); ok {
		o.option.Data = t.Append(o.data[:0])
		o.msg.Extra = o.stamped
	}
}

func (o *outgoing) allows(address string) bool {
	return o.before.plugin.stamp.allows(address) || address == unknownPeer && o.before.known().stampsAll
}
