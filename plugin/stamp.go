package dnstrace

import (
	"context"
	"net/netip"
	"reflect"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// Which upstream gets a query is decided in forward, behind the cache and its
// copies of the message. So the option is put in there: a handler of ours stands
// directly before forward and hands it a copy of the message, in which the
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

// stamper is the handler before one that asks upstreams. It has no hop of its
// own, so it goes by the name of the other.
type stamper struct {
	Next plugin.Handler

	plugin *Dnstrace
	// unnamed tells whether upstreams that an attempt does not name (grpc's) get
	// the option: they do if all of them are in the list.
	unnamed bool
}

// addStampers puts a stamper before each plugin from h on that asks upstreams.
// It returns the handler that takes the place of h, which is after the plugin
// before, and whether something changed.
func (d *Dnstrace) addStampers(before string, h plugin.Handler) (first plugin.Handler, changed bool) {
	if h == nil {
		return nil, false
	}
	name := h.Name()
	if rest, ok := d.addStampers(name, nextOf(h)); ok {
		h, changed = setNext(h, rest), true
	}
	switch {
	case name == forwardPlugin && before == forwardPlugin:
		// forward looks whether the next one is a forward too, so nothing may
		// stand between them. They share the message.
	case name == forwardPlugin:
		return &stamper{Next: h, plugin: d}, true
	case name == grpcPlugin:
		return &stamper{Next: h, plugin: d, unnamed: d.stampsAll(h)}, true
	}
	return h, changed
}

// stampsAll reports whether all upstreams of a grpc get the option.
func (d *Dnstrace) stampsAll(h plugin.Handler) bool {
	proxies := reflect.Indirect(reflect.ValueOf(h)).FieldByName("proxies")
	if d.stamp.all || !proxies.IsValid() || proxies.Kind() != reflect.Slice {
		return d.stamp.all
	}
	for i := range proxies.Len() {
		p := reflect.Indirect(proxies.Index(i))
		if p.Kind() != reflect.Struct {
			return false
		}
		if addr := p.FieldByName("addr").String(); !d.stamp.allows(addr) {
			log.Warningf("stamp %s: the queries of grpc are not stamped, because its upstream %s is not in there and its attempts cannot be told apart", &d.stamp, addr)
			return false
		}
	}
	return proxies.Len() > 0
}

// nextOf returns the handler after h, which by convention is in its field Next.
func nextOf(h plugin.Handler) plugin.Handler {
	v := reflect.Indirect(reflect.ValueOf(h))
	if v.Kind() != reflect.Struct {
		return nil
	}
	next, _ := field(v, "Next").(plugin.Handler)
	return next
}

// setNext sets the handler after h, which has one. A handler that is no
// pointer is copied.
func setNext(h, next plugin.Handler) plugin.Handler {
	v := reflect.ValueOf(h)
	if v.Kind() == reflect.Pointer {
		v.Elem().FieldByName("Next").Set(reflect.ValueOf(next))
		return h
	}
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	c.FieldByName("Next").Set(reflect.ValueOf(next))
	return c.Interface().(plugin.Handler)
}

// Name implements plugin.Handler.
func (h *stamper) Name() string { return h.Next.Name() }

// ServeDNS implements plugin.Handler. A query that makes no record has no span
// that the option could name.
func (h *stamper) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	s, ok := ot.SpanFromContext(ctx).(*span)
	if !ok || r.Opcode != dns.OpcodeQuery || signed(r) {
		return h.Next.ServeDNS(ctx, w, r)
	}
	o := newOutgoing(ctx, h, w, r)
	s.stamper = true
	return h.Next.ServeDNS(o, &o.writer, &o.msg)
}

// outgoing is a query on its way to upstreams, and the context of it.
type outgoing struct {
	context.Context
	stamper *stamper
	writer  upstreamWriter
	msg     dns.Msg
	plain   []dns.RR // the additional section without the option
	stamped []dns.RR // and with it
	opt     dns.OPT
	option  dns.EDNS0_LOCAL
	data    [27]byte
}

func newOutgoing(ctx context.Context, h *stamper, w dns.ResponseWriter, r *dns.Msg) *outgoing {
	// The client's own option is gone since receive, but others may have put one in.
	r = withoutOption(r, h.plugin.optionCode)
	o := &outgoing{Context: ctx, stamper: h, msg: *r, plain: r.Extra}
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
// span behind the stamper, and only an attempt whose upstream is known to be
// allowed leaves the option in.
func (o *outgoing) prepare(s *span) {
	o.msg.Extra = o.plain
	switch {
	case s.peer == "", s.peer == unknownPeer && !o.stamper.unnamed, s.peer != unknownPeer && !o.stamper.plugin.stamp.allows(s.peer):
		return
	}
	t, ok := s.traceparent()
	if !ok {
		return
	}
	o.option.Data = t.Append(o.data[:0])
	o.msg.Extra = o.stamped
}

// traceparent returns the trace context of an attempt that goes out with it:
// what the upstream does for it comes below it. A query that is over has none.
func (s *span) traceparent() (t trace.Traceparent, ok bool) {
	q, ok := s.lock()
	if !ok {
		return t, false
	}
	defer q.mu.Unlock()
	i := q.ident
	i.compute()
	t.TraceID, t.SpanID = i.traceID, trace.NewSpanID(i.traceID, i.spanID, trace.RoleAttempt, int(s.number))
	if q.plugin.policy.chosen(i) {
		t.Flags = trace.FlagSampled
	}
	if !s.rec.closed {
		s.stamped = true
	}
	return t, true
}

// upstreamWriter takes out of an answer what is there because of the stamper.
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
