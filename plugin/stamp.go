package dnstrace

import (
	"context"
	"net/netip"
	"slices"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// Which upstream gets a query is decided in forward, behind the cache and its
// copies of the message. So the option is put in there: the hop
// directly before forward hands it a copy of the message, in which the
// option comes and goes with the upstream of each attempt.

// stampSize is the UDP size that a query advertises whose client sent no OPT:
// the answer then comes whole, with the OPT that is taken out again, and the
// server truncates it to what the client can take. It is what resolvers
// advertise to avoid fragments (DNS flag day 2020).
const stampSize = 1232

// stampPolicy says which upstreams get the option.
type stampPolicy struct {
	set bool // in the Corefile
	all bool
	to  networks
}

func (p *stampPolicy) off() bool { return !p.all && len(p.to) == 0 }

// allows reports whether an upstream, "address:port", gets the option. One
// that has another form is in no network.
func (p *stampPolicy) allows(peer string) bool {
	if p.all {
		return true
	}
	ap, err := netip.ParseAddrPort(peer)
	return err == nil && p.to.contain(ap.Addr())
}

func (p *stampPolicy) String() string {
	switch {
	case p.all:
		return "all"
	case p.off():
		return "off"
	}
	return p.to.String()
}

func (d *Dnstrace) parseStamp(c *caddy.Controller, args []string) (err error) {
	p := &d.stamp
	switch {
	case p.set:
		return c.Errf("stamp is already set to %s: expected it once", p)
	case len(args) == 0:
		return c.Errf("stamp which upstreams? expected off, all or networks such as 10.0.0.0/8 or fd00::/8")
	case args[0] != "off" && args[0] != "all":
		p.to, err = parseNetworks(c, "stamp", args, "off, all or ")
	case len(args) > 1:
		return c.Errf("stamp %s %s: expected nothing after %s", args[0], args[1], args[0])
	}
	p.set, p.all = true, args[0] == "all"
	return err
}

// stamps reports whether the option may be put into r on its way to upstreams.
func (d *Dnstrace) stamps(r *dns.Msg) bool {
	return !d.stamp.off() && r.Opcode == dns.OpcodeQuery && !signed(r)
}

// stampsAll reports whether all upstreams of a grpc get the option: then so do the attempts that
// do not say which of them they ask.
func (d *Dnstrace) stampsAll(addrs []string) bool {
	if d.stamp.all || d.stamp.off() {
		return d.stamp.all
	}
	for _, addr := range addrs {
		if !d.stamp.allows(addr) {
			log.Warningf("stamp %s: a query of grpc is stamped only if CoreDNS says whom it is for, because its upstream %s is not in there", &d.stamp, addr)
			return false
		}
	}
	return len(addrs) > 0
}

// outgoing is a query on its way to upstreams, and the context of it.
type outgoing struct {
	context.Context
	before  *hop // which asks upstreams
	writer  upstreamWriter
	msg     dns.Msg
	plain   []dns.RR // the additional section without the option
	stamped []dns.RR // and with it
	opt     dns.OPT
	option  dns.EDNS0_LOCAL
	data    [27]byte
}

func newOutgoing(ctx context.Context, h *hop, w dns.ResponseWriter, r *dns.Msg) *outgoing {
	// The client's own option is gone since receive, but others may have put one in.
	r = withoutOption(r, h.plugin.optionCode)
	o := &outgoing{Context: ctx, before: h, msg: *r, plain: r.Extra}
	o.option.Code = h.plugin.optionCode
	o.writer = upstreamWriter{ResponseWriter: w, code: h.plugin.optionCode}
	if opt := r.IsEdns0(); opt != nil {
		o.opt = *opt
		o.opt.Option = append(slices.Clip(opt.Option), &o.option)
		o.stamped = slices.Clone(r.Extra)
		o.stamped[slices.Index(r.Extra, dns.RR(opt))] = &o.opt
		return o
	}
	o.writer.noOPT = true
	o.opt.Hdr = dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}
	o.opt.SetUDPSize(stampSize)
	o.opt.Option = []dns.EDNS0{&o.option}
	o.stamped = append(slices.Clip(r.Extra), &o.opt)
	return o
}

// outgoingKey is the context key of the outgoing query.
type outgoingKey struct{}

// Value implements context.Context.
func (o *outgoing) Value(key any) any {
	if key == (outgoingKey{}) {
		return o
	}
	return o.Context.Value(key)
}

// prepare makes the message ready for what s stands for. It is called for each
// span behind the hop, and only an attempt whose upstream is known to be
// allowed leaves the option in.
func (o *outgoing) prepare(s *span) {
	o.msg.Extra = o.plain
	if t, ok := s.traceparent(o.allows); ok {
		o.option.Data = t.Append(o.data[:0])
		o.msg.Extra = o.stamped
	}
}

func (o *outgoing) allows(address string) bool {
	if address == unknownPeer {
		return o.before.known().named
	}
	return o.before.plugin.stamp.allows(address)
}

// upstreamWriter takes out of an answer what is there because the query was stamped.
type upstreamWriter struct {
	dns.ResponseWriter
	code  uint16
	noOPT bool // the query had none before
}

// WriteMsg implements dns.ResponseWriter.
func (w *upstreamWriter) WriteMsg(m *dns.Msg) error {
	if !signed(m) {
		if w.noOPT {
			m = withoutOPT(m)
		} else {
			m = withoutOption(m, w.code)
		}
	}
	return w.ResponseWriter.WriteMsg(m)
}
