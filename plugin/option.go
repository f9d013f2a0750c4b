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
	optionIgnored   = "ignored"   // the client is not one that we accept it from
	optionMalformed = "malformed" // it is, but the option cannot be read
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
	return t, optionMalformed // or, where it is not found, in an OPT beside the one that counts
}

// receive takes the trace context out of a query, and counts it: it ends here, whoever sent it. CoreDNS would
// forward it with the other options, and an upstream that accepts ours would take a stranger's for ours.
func (d *Dnstrace) receive(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *dns.Msg {
	if !trace.HasTraceparent(r, d.optionCode) {
		return r
	}
	client, _ := address(w.RemoteAddr())
	_, result := d.incoming(client.Addr(), r)
	optionsSeen.WithLabelValues(d.metricsOf(ctx).with(result)...).Inc()
	return trace.WithoutTraceparent(r, d.optionCode)
}

// withoutOPT returns m without OPT: m itself where it has none, or else a copy.
func withoutOPT(m *dns.Msg) *dns.Msg {
	if m.IsEdns0() == nil {
		return m
	}
	stripped := *m
	stripped.Extra = slices.DeleteFunc(slices.Clone(m.Extra), isOPT)
	if stripped.Rcode > 0xf {
		// The rest of it was in the OPT (RFC 6891, section 6.1.3).
		stripped.Rcode = dns.RcodeServerFailure
	}
	return &stripped
}

func isOPT(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT }

// Which upstream gets a query is decided in forward, behind the cache and its copies of the message. So the
// option is put in there: the hop directly before forward hands it a copy of the message, in which the option
// comes and goes with the upstream of each attempt.

// stampSize is the UDP size that a query advertises whose client sent no OPT: the answer then comes whole, with
// the OPT that is taken out again, and the server truncates it to what the client can take. It is what
// resolvers advertise to avoid fragments (DNS flag day 2020).
const stampSize = 1232

// off reports whether no upstream gets the option.
func (p *stampPolicy) off() bool { return !p.all && len(p.to) == 0 }

// allows reports whether an upstream, "address:port", gets the option. One that has another form is in no
// network.
func (p *stampPolicy) allows(peer string) bool {
	if p.all {
		return true
	}
	ap, err := netip.ParseAddrPort(peer)
	return err == nil && p.to.contain(ap.Addr())
}

// stamps reports whether the option may be put into r on its way to upstreams.
func (d *Dnstrace) stamps(r *dns.Msg) bool {
	return !d.stamp.off() && r.Opcode == dns.OpcodeQuery && !trace.Signed(r)
}

// stampsAll reports whether all upstreams of a grpc get the option: then so do the attempts that do not say which
// of them they ask.
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
	return d.stamp.all || len(addrs) > 0
}

// outgoing is a query on its way to upstreams.
type outgoing struct {
	before  *hop           // which asks upstreams
	writer  responseWriter // takes out of the answer what is there because of it
	msg     dns.Msg
	plain   []dns.RR // the additional section without the option
	stamped []dns.RR // and with it
	opt     dns.OPT
	option  dns.EDNS0_LOCAL
	data    [27]byte
}

func newOutgoing(h *hop, w dns.ResponseWriter, r *dns.Msg) *outgoing {
	// The client's own option is gone since receive, but others may have put one in.
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

// prepare makes the message ready for what s stands for. It is called for each span behind the hop, and only an
// attempt whose upstream is known to be allowed leaves the option in.
func (o *outgoing) prepare(s *span) {
	o.msg.Extra = o.plain
	if t, ok := s.traceparent(o.allows); ok {
		o.option.Data = t.Append(o.data[:0])
		o.msg.Extra = o.stamped
	}
}

func (o *outgoing) allows(address string) bool {
	if address == unknownPeer {
		return o.before.known().stampsAll
	}
	return o.before.plugin.stamp.allows(address)
}
