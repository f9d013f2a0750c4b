package trace

import (
	"net/netip"
	"strconv"
)

// AppendJSON implements Record.
func (e *Exchange) AppendJSON(b []byte) []byte {
	b = e.Header.appendJSON(b, KindExchange)
	b = e.DNS.appendJSON(b)
	b = appendAddr(append(b, `,"server_ip":`...), e.ServerIP)
	b = appendUint(append(b, `,"server_port":`...), e.ServerPort)
	b = e.NAT.appendJSON(append(b, `,"nat":`...))
	b = appendString(append(b, `,"outcome":`...), e.Outcome)
	b = appendInt(append(b, `,"transmissions":`...), e.Transmissions)
	b = append(b, `,"path":[`...)
	ends := endsText{}
	for i := range e.Path {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.Path[i].appendJSON(b, &ends)
	}
	b = e.Drop.appendJSON(append(b, `],"drop":`...))
	b = strconv.AppendBool(append(b, `,"truncated":`...), e.Truncated)
	b = appendString(append(b, `,"traceparent":`...), e.Traceparent)
	b = e.Client.appendJSON(append(b, `,"client":`...))
	b = e.Server.appendJSON(append(b, `,"server":`...))
	b = strconv.AppendUint(append(b, `,"lost_events":`...), e.LostEvents, 10)
	if e.PathOmitted != 0 {
		b = appendInt(append(b, `,"path_omitted":`...), e.PathOmitted)
	}
	b = appendString(append(b, `,"node":`...), e.Node)
	b = e.appendResponse(b)
	b = e.ICMP.appendJSON(append(b, `,"icmp":`...))
	b = e.Fragments.appendJSON(append(b, `,"fragments":`...))
	b = appendFloat(append(b, `,"sample":`...), e.Sample)
	if e.SampledInKernel {
		b = append(b, `,"sampled_in_kernel":true`...)
	}
	return append(b, '}')
}

func (e *Exchange) appendResponse(b []byte) []byte {
	b = appendStrings(append(b, `,"flags":`...), e.Flags)
	b = appendIntPtr(append(b, `,"answer_count":`...), e.AnswerCount)
	b = append(b, `,"answers":[`...)
	for i := range e.Answers {
		if i > 0 {
			b = append(b, ',')
		}
		a := &e.Answers[i]
		b = appendString(append(b, `{"type":`...), a.Type)
		b = appendString(append(b, `,"value":`...), a.Value)
		b = append(appendUint(append(b, `,"ttl":`...), a.TTL), '}')
	}
	b = appendUintPtr(append(b, `],"min_ttl":`...), e.MinTTL)
	return e.ExtendedError.appendJSON(append(b, `,"extended_error":`...))
}

func (e *ExtendedError) appendJSON(b []byte) []byte {
	if e == nil {
		return append(b, "null"...)
	}
	b = appendUint(append(b, `{"code":`...), e.Code)
	b = appendString(append(b, `,"name":`...), e.Name)
	b = appendString(append(b, `,"text":`...), e.Text)
	return append(b, '}')
}

func (i *ICMP) appendJSON(b []byte) []byte {
	if i == nil {
		return append(b, "null"...)
	}
	b = appendUint(append(b, `{"type":`...), i.Type)
	b = appendUint(append(b, `,"code":`...), i.Code)
	b = appendAddr(append(b, `,"from":`...), i.From)
	b = appendString(append(b, `,"message":`...), i.Message)
	b = appendUint(append(b, `,"mtu":`...), i.MTU)
	b = i.Offset.appendJSON(append(b, `,"offset_seconds":`...))
	return append(b, '}')
}

func (f *Fragments) appendJSON(b []byte) []byte {
	if f == nil {
		return append(b, "null"...)
	}
	b = appendString(append(b, `{"message":`...), f.Message)
	b = appendInt(append(b, `,"seen":`...), f.Seen)
	b = appendInt(append(b, `,"seen_bytes":`...), f.SeenBytes)
	b = appendIntPtr(append(b, `,"size":`...), f.Size)
	b = strconv.AppendBool(append(b, `,"complete":`...), f.Complete)
	return append(b, '}')
}

func (n *NAT) appendJSON(b []byte) []byte {
	if n == nil {
		return append(b, "null"...)
	}
	b = appendAddr(append(b, `{"server_ip":`...), n.ServerIP)
	b = appendUintPtr(append(b, `,"server_port":`...), n.ServerPort)
	b = appendAddr(append(b, `,"client_ip":`...), n.ClientIP)
	b = appendUintPtr(append(b, `,"client_port":`...), n.ClientPort)
	b = appendString(append(b, `,"source":`...), n.Source)
	if e := n.Endpoint; e != nil {
		b = appendString(append(b, `,"endpoint":{"state":`...), e.State)
		b = appendString(append(b, `,"pod":`...), e.Pod)
		b = append(appendSeconds(append(b, `,"since_seconds":`...), e.Since), '}')
	}
	return append(b, '}')
}

// endsText is where the addresses of the sighting before are written: many have the
// same, and to copy text is faster than to make it.
type endsText struct {
	src, dst netip.AddrPort
	from, to int
}

func (t *endsText) appendJSON(b []byte, src, dst netip.AddrPort) []byte {
	if t.to > 0 && src == t.src && dst == t.dst {
		return append(b, b[t.from:t.to]...)
	}
	t.src, t.dst, t.from = src, dst, len(b)
	b = appendAddrPort(append(b, `,"src":`...), src)
	b = appendAddrPort(append(b, `,"dst":`...), dst)
	t.to = len(b)
	return b
}

func (s *Sighting) appendJSON(b []byte, ends *endsText) []byte {
	b = s.Offset.appendJSON(append(b, `{"offset_seconds":`...))
	b = s.appendPlace(b)
	b = ends.appendJSON(b, s.Src, s.Dst)
	if s.VLAN != 0 {
		b = appendUint(append(b, `,"vlan":`...), s.VLAN)
	}
	if t := s.Tunnel; t != nil {
		b = appendAddrPort(append(b, `,"tunnel":{"src":`...), t.Src)
		b = appendAddrPort(append(b, `,"dst":`...), t.Dst)
		b = append(appendUint(append(b, `,"vni":`...), t.VNI), '}')
	}
	return append(b, '}')
}

func (d *Drop) appendJSON(b []byte) []byte {
	if d == nil {
		return append(b, "null"...)
	}
	b = appendString(append(b, `{"where":`...), d.Where)
	b = appendString(append(b, `,"reason":`...), d.Reason)
	b = appendString(append(b, `,"words":`...), d.Words)
	b = appendString(append(b, `,"message":`...), d.Message)
	b = appendUint(append(b, `,"netns":`...), d.NetNS)
	b = appendString(append(b, `,"netns_name":`...), d.NetNSName)
	b = appendString(append(b, `,"ifname":`...), d.IfName)
	b = d.Offset.appendJSON(append(b, `,"offset_seconds":`...))
	if d.ConntrackMax != 0 {
		b = appendUint(append(b, `,"conntrack_count":`...), d.ConntrackCount)
		b = appendUint(append(b, `,"conntrack_max":`...), d.ConntrackMax)
	}
	return append(b, '}')
}
