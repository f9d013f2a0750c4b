// Package pcap writes the packets of lookups as pcapng, for Wireshark and tshark:
// each place that a packet passed is a packet of the file, on the interface of that
// place, with a comment that says which lookup, which leg and which place it is, and
// where it was dropped why.
//
// Records hold no packets. Addresses, ports, times and places are exact; the headers
// are made again from them (time to live, IP identification and TCP numbers are not
// known). The DNS message is what was captured, where the tracer still has it, else
// it is made again from the record; each comment says which.
package pcap

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/dnstrace/dnstrace/trace"
)

// Message is a DNS message as it was captured.
type Message struct {
	Time time.Time
	Wire []byte // from its front, as far as captured
	Size int    // bytes on the wire
}

// Captured returns the messages of an exchange that the tracer still has, queries or
// responses, in order of time; none where nobody has any.
type Captured func(ex *trace.Exchange, response bool) []Message

// Write writes the packets of lookups in order of time. captured may be nil.
func Write(w io.Writer, traces []*trace.Trace, captured Captured) error {
	b := builder{captured: captured}
	for _, t := range traces {
		b.trace(t)
	}
	slices.SortStableFunc(b.packets, func(x, y packet) int { return x.at.Compare(y.at) })
	return b.write(w)
}

// place is where packets are seen: an interface of the file.
type place struct {
	netns  uint32
	ifname string // empty: the packet had no device yet
	alias  string // of the namespace; empty: it has none
}

// name is how the interface is called: namespace and device.
func (p place) name() string {
	netns := cmp.Or(p.alias, fmt.Sprint(p.netns))
	return netns + "/" + cmp.Or(p.ifname, "(no device)")
}

// packet is one sighting.
type packet struct {
	at      time.Time
	place   place
	data    []byte
	size    int // on the wire
	comment string
	inbound bool
}

type builder struct {
	captured Captured
	packets  []packet
}

func (b *builder) trace(t *trace.Trace) {
	if t.Exchange != nil {
		b.exchange(t, t.Exchange, "client leg")
	}
	b.upstreams(t, t.Upstreams, "upstream")
}

func (b *builder) upstreams(t *trace.Trace, list []trace.Upstream, name string) {
	for i := range list {
		u := &list[i]
		stage := fmt.Sprintf("%s %d", name, i+1)
		if u.Exchange != nil {
			b.exchange(t, u.Exchange, stage)
		}
		b.upstreams(t, u.Upstreams, stage+", upstream")
	}
}

// exchange adds every sighting of a query and its response, and the drop.
func (b *builder) exchange(t *trace.Trace, ex *trace.Exchange, stage string) {
	messages := b.messages(ex)
	var last [2]*trace.Sighting // query, response
	for i := range ex.Path {
		s := &ex.Path[i]
		last[index(s.Message)] = s
		words := []string{direction(s)}
		if s.VLAN != 0 {
			words = append(words, fmt.Sprintf("VLAN %d", s.VLAN))
		}
		if s.Tunnel != nil {
			words = append(words, fmt.Sprintf("in a tunnel from %s to %s, network %d", s.Tunnel.Src, s.Tunnel.Dst, s.Tunnel.VNI))
		}
		p := packet{at: ex.Time.Add(s.Offset.Duration()), place: place{s.NetNS, s.IfName, s.NetNSName}, inbound: s.Direction == trace.DirectionRX}
		b.add(t, ex, p, s, messages, stage, words)
	}
	if d := ex.Drop; d != nil {
		// Addressed as it was seen last.
		s := last[index(d.Message)]
		if s == nil {
			return
		}
		words := []string{"DROPPED: " + cmp.Or(d.Reason, "the kernel gives no reason") + " at " + cmp.Or(d.Where, "an unknown place")}
		if d.Words != "" {
			words = append(words, d.Words)
		}
		b.add(t, ex, packet{at: ex.Time.Add(d.Offset.Duration()), place: place{d.NetNS, d.IfName, d.NetNSName}, inbound: true}, s, messages, stage, words)
	}
}

func direction(s *trace.Sighting) string {
	if s.Direction == trace.DirectionRX {
		return "received"
	}
	return "sent"
}

func index(message string) int {
	if message == trace.MessageResponse {
		return 1
	}
	return 0
}

// source is the messages of an exchange: captured, or made again.
type source struct {
	captured []Message
	rebuilt  []byte
}

func (b *builder) messages(ex *trace.Exchange) [2]source {
	var all [2]source
	for i := range all {
		response := i == 1
		if b.captured != nil {
			all[i].captured = b.captured(ex, response)
		}
		all[i].rebuilt = rebuild(ex, response)
	}
	return all
}

// near returns the captured message that is closest in time: of retransmissions
// each has its own.
func (s *source) near(at time.Time) *Message {
	var best *Message
	for i := range s.captured {
		if m := &s.captured[i]; best == nil || at.Sub(m.Time).Abs() < at.Sub(best.Time).Abs() {
			best = m
		}
	}
	return best
}

// add makes a packet of a sighting, and leaves out what cannot be made.
func (b *builder) add(t *trace.Trace, ex *trace.Exchange, p packet, s *trace.Sighting, messages [2]source, stage string, words []string) {
	from := &messages[index(s.Message)]
	wire, size := from.rebuilt, ex.RequestSize
	if index(s.Message) == 1 && ex.ResponseSize != nil {
		size = *ex.ResponseSize
	}
	origin := "message rebuilt from the record"
	if m := from.near(p.at); m != nil {
		wire, size, origin = m.Wire, m.Size, "message as captured"
	}
	if wire == nil {
		return
	}
	// What the record lacks of the message is missing at its end, as from a capture
	// that was cut. A compression that is worse than the sender's makes it longer.
	size = max(size, len(wire))
	var err error
	if p.data, p.size, err = wrap(s, ex.Protocol, index(s.Message) == 1, wire, size); err != nil {
		return
	}
	p.comment = fmt.Sprintf("trace %s, %s %s: %s", t.TraceID, stage, s.Message, p.place.name())
	for _, w := range words {
		p.comment += ", " + w
	}
	p.comment += "; headers rebuilt, " + origin
	b.packets = append(b.packets, p)
}

// write writes the file. Its interfaces stand in order of their first packet.
func (b *builder) write(w io.Writer) error {
	var out *pcapgo.NgWriter
	numbers := map[place]int{}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Application: "dnstrace explain", Comment: "One packet for every place at which it was seen; see the comments.",
	}}
	for _, p := range b.packets {
		n, ok := numbers[p.place]
		if !ok {
			itf := pcapgo.NgInterface{Name: p.place.name(), LinkType: layers.LinkTypeRaw,
				Description: fmt.Sprintf("network namespace %d", p.place.netns)}
			var err error
			if out == nil {
				out, err = pcapgo.NewNgWriterInterface(w, itf, options)
			} else {
				n, err = out.AddInterface(itf)
			}
			if err != nil {
				return fmt.Errorf("pcapng: %w", err)
			}
			numbers[p.place] = n
		}
		flags := &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionOutbound}
		if p.inbound {
			flags.Direction = pcapgo.NgEpbFlagDirectionInbound
		}
		info := gopacket.CaptureInfo{Timestamp: p.at, CaptureLength: len(p.data), Length: p.size, InterfaceIndex: n}
		if err := out.WritePacketWithOptions(info, p.data, pcapgo.NgPacketOptions{Comments: []string{p.comment}, Flags: flags}); err != nil {
			return fmt.Errorf("pcapng: %w", err)
		}
	}
	if out == nil {
		return errNothing
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}
