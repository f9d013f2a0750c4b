// Package pcap writes the packets of lookups as pcapng, for Wireshark and tshark:
// each place that a packet passed is a packet of the file, on the interface of that
// place, with a comment that names the lookup, the query and the place, and the reason of a
// drop.
//
// Records hold no packets. Addresses, ports, times and places are exact; the headers are
// rebuilt from them (time to live, IP identification and TCP numbers are unknown). The DNS
// message is the captured one, where the tracer still has it, else it is rebuilt from the
// record; each comment says which.
package pcap

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/klauspost/compress/s2"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/linesort"
	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// Message is a DNS message as it was captured.
type Message struct {
	Time time.Time
	Wire []byte // from its front, as far as captured
	Size int    // bytes on the wire
}

// Captured returns the messages of an exchange that the tracer still has, queries or
// responses, in order of time; none where the tracer has none.
type Captured func(ex *trace.Exchange, response bool) []Message

// Packets writes the packets of lookups to a file, in constant memory: many are sorted in
// temporary files. Not safe for concurrent use.
type Packets struct {
	captured Captured
	sorter   *linesort.Sorter // of packets in JSON, by time
	line     []byte
	nodes    map[string]bool // whose tracers saw them
	err      error           // of the sorter, which ends it
}

// sortMemory holds the packets of some thousand lookups.
const sortMemory = 4 << 20

// New returns no packets. captured may be nil.
func New(captured Captured) *Packets {
	return &Packets{captured: captured, sorter: linesort.New(sortMemory), nodes: map[string]bool{}}
}

// Add adds the packets of a lookup.
func (b *Packets) Add(t *trace.Trace) error {
	if t.Exchange != nil {
		b.exchange(t, t.Exchange, "client")
	}
	b.upstreams(t, t.Upstreams, "upstream")
	return b.err
}

// Close gives back what the packets take.
func (b *Packets) Close() { b.sorter.Close() }

// place is where packets are seen: an interface of the file.
type place struct {
	Node   string
	NetNS  uint32
	IfName string // empty: the packet had no device yet
	Alias  string // of the namespace; empty: it has none
}

// name is how the interface is called: namespace and device, after the node where
// packets of several are in the file.
func (p place) name(nodes int) string {
	name := cmp.Or(p.Alias, fmt.Sprint(p.NetNS)) + "/" + cmp.Or(p.IfName, "(no device)")
	if nodes > 1 && p.Node != "" {
		name = p.Node + "/" + name
	}
	return oneline.Shorten(name, maxName)
}

// Bounds of a record's texts in the file: an option of pcapng may have 65,535 bytes, and is
// displayed completely.
const (
	maxName    = 300
	maxComment = 4 << 10
)

// packet is one sighting.
type packet struct {
	At          time.Time
	Place       place
	Data        []byte
	Size        int    // on the wire
	What        string // which packet of which lookup
	Description string // what happened to it there
	Inbound     bool
}

func (p *packet) comment(nodes int) string {
	return oneline.Shorten(p.What+": "+p.Place.name(nodes)+p.Description, maxComment)
}

func (b *Packets) upstreams(t *trace.Trace, list []trace.Upstream, name string) {
	for i := range list {
		u := &list[i]
		stage := fmt.Sprintf("%s %d", name, i+1)
		for _, ex := range u.Exchanges() {
			b.exchange(t, ex, stage)
		}
		b.upstreams(t, u.Upstreams, stage+", upstream")
	}
}

// exchange adds every sighting of a query and its response at a device, and the
// drops. What came into a socket, or out of it, is no other packet.
func (b *Packets) exchange(t *trace.Trace, ex *trace.Exchange, stage string) {
	messages := b.messages(ex)
	for _, s := range ex.Path.All() {
		if s.Direction != trace.DirectionRX && s.Direction != trace.DirectionTX {
			continue
		}
		words := []string{direction(&s)}
		if s.VLAN != 0 {
			words = append(words, fmt.Sprintf("VLAN %d", s.VLAN))
		}
		if s.Tunnel != nil {
			words = append(words, tunnel(s.Tunnel))
		}
		p := packet{At: ex.Time.Add(s.Offset.Duration()), Place: place{s.Node, s.NetNS, s.IfName, s.NetNSName}, Inbound: s.Direction == trace.DirectionRX}
		b.add(t, ex, p, &s, messages, stage, words)
	}
	for i := range ex.Drops {
		d := &ex.Drops[i]
		// Addressed as it was seen last.
		s, ok := ex.Last(d.Message, d.Offset)
		if !ok {
			continue
		}
		words := []string{"DROPPED: " + cmp.Or(d.Reason, "the kernel gives no reason") + " at " + cmp.Or(d.Where, "an unknown place")}
		if d.BPF != "" {
			words = append(words, "by an eBPF program: "+d.BPF)
		}
		if d.Description != "" {
			words = append(words, d.Description)
		}
		b.add(t, ex, packet{At: ex.Time.Add(d.Offset.Duration()), Place: place{d.Node, d.NetNS, d.IfName, d.NetNSName}, Inbound: true}, &s, messages, stage, words)
	}
}

// tunnel says what the outer packet was.
func tunnel(x *trace.Tunnel) string {
	text := fmt.Sprintf("in a %s tunnel from %s to %s", x.Kind, x.Src, x.Dst)
	if x.Src.Port() == 0 {
		text = fmt.Sprintf("in a %s tunnel from %s to %s", x.Kind, x.Src.Addr(), x.Dst.Addr())
	}
	if x.VNI != 0 {
		text += fmt.Sprintf(", network %d", x.VNI)
	}
	return text
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

func (b *Packets) messages(ex *trace.Exchange) [2]source {
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

// closest returns the captured message that is closest in time: of retransmissions
// each has its own.
func (s *source) closest(at time.Time) *Message {
	var best *Message
	for i := range s.captured {
		if m := &s.captured[i]; best == nil || at.Sub(m.Time).Abs() < at.Sub(best.Time).Abs() {
			best = m
		}
	}
	return best
}

// add makes a packet of a sighting, and leaves out what cannot be made.
func (b *Packets) add(t *trace.Trace, ex *trace.Exchange, p packet, s *trace.Sighting, messages [2]source, stage string, words []string) {
	from := &messages[index(s.Message)]
	wire, size := from.rebuilt, ex.RequestSize
	if index(s.Message) == 1 && ex.ResponseSize != nil {
		size = *ex.ResponseSize
	}
	origin := "message rebuilt from the record"
	if m := from.closest(p.At); m != nil {
		wire, size, origin = m.Wire, m.Size, "message as captured"
	}
	if wire == nil {
		return
	}
	// What the record lacks of the message is missing at its end, as in a truncated
	// capture. A compression that is worse than the sender's makes it longer.
	size = max(size, len(wire))
	var err error
	if p.Data, p.Size, err = wrap(s, ex.Protocol, index(s.Message) == 1, wire, size); err != nil {
		return
	}
	p.What = fmt.Sprintf("trace %s, %s %s", t.TraceID, stage, s.Message)
	for _, w := range words {
		p.Description += ", " + w
	}
	p.Description += "; headers rebuilt, " + origin
	if p.Place.Node != "" {
		b.nodes[p.Place.Node] = true
	}
	b.keep(&p)
}

// keep gives a packet to the sorter.
func (b *Packets) keep(p *packet) {
	if b.err != nil {
		return
	}
	line, err := json.Marshal(p)
	if err == nil {
		b.line = s2.Encode(b.line[:cap(b.line)], line)
		err = b.sorter.Add(linesort.Key{Major: p.At.UnixNano()}, b.line)
	}
	b.err = err
}

// Write writes the file, in order of time. Its interfaces stand in order of their
// first packet. Nothing is written if there is no packet, and the error says so.
func (b *Packets) Write(w io.Writer) error {
	out := file{to: w, numbers: map[place]int{}, nodes: len(b.nodes)}
	var line []byte
	if err := b.sorter.Each(func(_ linesort.Key, packed []byte) error {
		var err error
		if line, err = s2.Decode(line[:cap(line)], packed); err != nil {
			return err
		}
		var p packet
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		return out.packet(&p)
	}); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	if out.ng == nil {
		return errNothing
	}
	if err := out.ng.Flush(); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// file is the pcapng file. It has at least one interface from its front on, that of
// its first packet.
type file struct {
	to      io.Writer
	ng      *pcapgo.NgWriter
	numbers map[place]int
	nodes   int // of which there are packets
}

func (f *file) packet(p *packet) error {
	n, err := f.number(p.Place)
	if err != nil {
		return err
	}
	flags := &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionOutbound}
	if p.Inbound {
		flags.Direction = pcapgo.NgEpbFlagDirectionInbound
	}
	info := gopacket.CaptureInfo{Timestamp: p.At, CaptureLength: len(p.Data), Length: p.Size, InterfaceIndex: n}
	return f.ng.WritePacketWithOptions(info, p.Data, pcapgo.NgPacketOptions{Comments: []string{p.comment(f.nodes)}, Flags: flags})
}

// number returns that of a place's interface, which it writes if it is new.
func (f *file) number(p place) (n int, err error) {
	n, ok := f.numbers[p]
	if ok {
		return n, nil
	}
	itf := pcapgo.NgInterface{Name: p.name(f.nodes), LinkType: layers.LinkTypeRaw, Description: fmt.Sprintf("network namespace %d", p.NetNS)}
	if f.ng == nil {
		f.ng, err = pcapgo.NewNgWriterInterface(f.to, itf, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
			Application: "dnstrace explain", Comment: "One packet for every place at which it was seen; see the comments.",
		}})
	} else {
		n, err = f.ng.AddInterface(itf)
	}
	f.numbers[p] = n
	return n, err
}
