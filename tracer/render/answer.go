package render

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/dnstrace/dnstrace/trace"
)

// maxAnswers keeps a head short: the rest is counted.
const maxAnswers = 8

// answer says what the response said, as far as it was captured.
func answer(e *trace.Exchange) []string {
	if e == nil {
		return nil
	}
	var parts []string
	for i, a := range e.Answers {
		if i == maxAnswers {
			break
		}
		switch text := a.Value; a.Type {
		case "A", "AAAA":
			parts = append(parts, text)
		default:
			parts = append(parts, a.Type+" "+text)
		}
	}
	shown := len(parts)
	if n := e.AnswerCount; n != nil && *n > shown && (shown > 0 || *n > 0) {
		parts = append(parts, english.Plural(*n, "record", "")+" in all")
	}
	if e.MinTTL != nil {
		parts = append(parts, "TTL "+(time.Duration(*e.MinTTL)*time.Second).String())
	}
	if len(e.Flags) > 0 {
		parts = append(parts, "flags "+strings.Join(e.Flags, " "))
	}
	if x := e.ExtendedError; x != nil {
		parts = append(parts, extendedError(x))
	}
	return parts
}

// extendedError quotes the server's own reason (RFC 8914).
func extendedError(x *trace.ExtendedError) string {
	text := fmt.Sprintf("extended error %d", x.Code)
	if x.Name != "" {
		text += " " + x.Name
	}
	if x.Text != "" {
		text += fmt.Sprintf(" %q", x.Text)
	}
	return text
}

// pieces tells of a message that IP cut up.
func (s *story) pieces(depth int, f *trace.Fragments) {
	if f == nil {
		return
	}
	size := "of unknown size"
	if f.Size != nil {
		size = fmt.Sprintf("of %d bytes", *f.Size)
	}
	t, end := warning, "all of it"
	if !f.Complete {
		t, end = bad, fmt.Sprintf("%d bytes of it: the rest is missing", f.SeenBytes)
	}
	s.note(depth, t, "the %s, %s, came in fragments; seen: %d, %s", f.Message, size, f.Seen, end)
}

// wrapped says what carried a packet at one place: a VLAN, a tunnel.
func wrapped(p *trace.Sighting) string {
	var parts []string
	if p.VLAN != 0 {
		parts = append(parts, fmt.Sprintf("VLAN %d", p.VLAN))
	}
	if x := p.Tunnel; x != nil {
		parts = append(parts, tunnel(x))
	}
	return strings.Join(parts, ", ")
}

// tunnel says what the outer packet of a tunnel was; GRE and IPIP have no ports, and
// IPIP no number either.
func tunnel(x *trace.Tunnel) string {
	end := func(a netip.AddrPort) string {
		if a.Port() == 0 {
			return a.Addr().String()
		}
		return a.String()
	}
	name := "tunnel"
	if x.Kind != "" {
		name = x.Kind + " tunnel"
	}
	text := fmt.Sprintf("%s %s → %s", name, end(x.Src), end(x.Dst))
	switch {
	case x.Kind == "vxlan" || x.Kind == "geneve" || x.Kind == "":
		text += fmt.Sprintf(", VNI %d", x.VNI)
	case x.VNI != 0:
		text += fmt.Sprintf(", key %d", x.VNI)
	}
	return text
}
