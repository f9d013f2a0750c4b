package trace

import (
	"strconv"
)

// AppendJSON implements Record. What is unknown, none or false is left out, but for what
// every exchange has: a node writes thousands of them a second.
func (e *Exchange) AppendJSON(b []byte) []byte {
	b = e.Header.appendJSON(b, KindExchange)
	b = e.DNS.appendJSON(b)
	b = appendAddr(append(b, `,"server_ip":`...), e.ServerIP)
	b = appendUint(append(b, `,"server_port":`...), e.ServerPort)
	if e.NAT != nil {
		b = e.NAT.appendJSON(append(b, `,"nat":`...))
	}
	b = appendString(append(b, `,"outcome":`...), e.Outcome)
	b = appendInt(append(b, `,"transmissions":`...), e.Transmissions)
	if e.Outstanding != 0 {
		b = appendInt(append(b, `,"outstanding":`...), e.Outstanding)
	}
	b = e.Path.appendJSON(append(b, `,"path":`...), e.Node)
	b = e.Milestones.appendJSON(append(b, `,"milestones":`...))
	b = appendList(append(b, `,"drops":`...), e.Drops, (*Drop).appendJSON)
	b = appendList(append(b, `,"rejected":`...), e.Rejected, (*Rejection).appendJSON)
	if e.Reset != nil {
		b = e.Reset.appendJSON(append(b, `,"reset":`...))
	}
	b = appendTrue(b, `,"listen_full":true`, e.ListenFull)
	if e.ResentSegments != 0 {
		b = appendInt(append(b, `,"resent_segments":`...), e.ResentSegments)
	}
	b = appendTrue(b, `,"replaces":true`, e.Replaces)
	b = appendTrue(b, `,"truncated":true`, e.Truncated)
	b = appendTrue(b, `,"respelled":true`, e.Respelled)
	b = appendKnown(b, `,"traceparent":`, e.Traceparent)
	if e.Client != nil {
		b = e.Client.appendJSON(append(b, `,"client":`...))
	}
	if e.Server != nil {
		b = e.Server.appendJSON(append(b, `,"server":`...))
	}
	b = strconv.AppendUint(append(b, `,"lost_events":`...), e.LostEvents, 10)
	if e.PathOmitted != 0 {
		b = appendInt(append(b, `,"path_omitted":`...), e.PathOmitted)
	}
	b = appendKnown(b, `,"node":`, e.Node)
	b = e.appendResponse(b)
	if e.ICMP != nil {
		b = e.ICMP.appendJSON(append(b, `,"icmp":`...))
	}
	if e.Fragments != nil {
		b = e.Fragments.appendJSON(append(b, `,"fragments":`...))
	}
	if e.Sample != nil {
		b = appendFloat(append(b, `,"sample":`...), e.Sample)
	}
	b = appendTrue(b, `,"sampled_in_kernel":true`, e.SampledInKernel)
	return append(b, '}')
}

// appendKnown appends a member whose value is known.
func appendKnown(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendQuote(append(b, name...), value)
}

// appendTrue appends a member that is true.
func appendTrue(b []byte, member string, is bool) []byte {
	if !is {
		return b
	}
	return append(b, member...)
}

func appendList[T any](b []byte, list []T, encode func(*T, []byte) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = encode(&list[i], b)
	}
	return append(b, ']')
}

func (e *Exchange) appendResponse(b []byte) []byte {
	if e.AnswerCount == nil {
		return b
	}
	b = appendStrings(append(b, `,"flags":`...), e.Flags)
	b = appendIntPtr(append(b, `,"answer_count":`...), e.AnswerCount)
	b = appendList(append(b, `,"answers":`...), e.Answers, (*Answer).appendJSON)
	if e.MinTTL != nil {
		b = appendUint(append(b, `,"min_ttl":`...), *e.MinTTL)
	}
	if e.ExtendedError != nil {
		b = e.ExtendedError.appendJSON(append(b, `,"extended_error":`...))
	}
	return b
}

func (a *Answer) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"type":`...), a.Type)
	b = appendString(append(b, `,"value":`...), a.Value)
	return append(appendUint(append(b, `,"ttl":`...), a.TTL), '}')
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
	b = appendString(append(b, `,"node":`...), i.Node)
	b = appendUint(append(b, `,"netns":`...), i.NetNS)
	b = appendKnown(b, `,"netns_name":`, i.NetNSName)
	b = appendString(append(b, `,"ifname":`...), i.IfName)
	b = appendString(append(b, `,"direction":`...), i.Direction)
	if i.BPF {
		b = append(b, `,"bpf":true`...)
	}
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
	b = appendString(append(b, `{"source":`...), n.Source)
	if n.ServerIP.IsValid() {
		b = appendAddr(append(b, `,"server_ip":`...), n.ServerIP)
	}
	if n.ServerPort != nil {
		b = appendUint(append(b, `,"server_port":`...), *n.ServerPort)
	}
	if n.ClientIP.IsValid() {
		b = appendAddr(append(b, `,"client_ip":`...), n.ClientIP)
	}
	if n.ClientPort != nil {
		b = appendUint(append(b, `,"client_port":`...), *n.ClientPort)
	}
	if e := n.Endpoint; e != nil {
		b = appendString(append(b, `,"endpoint":{"state":`...), e.State)
		b = appendString(append(b, `,"pod":`...), e.Pod)
		b = append(appendSeconds(append(b, `,"since_seconds":`...), e.Since), '}')
	}
	return append(b, '}')
}

func (d *Drop) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"message":`...), d.Message)
	b = appendString(append(b, `,"where":`...), d.Where)
	b = appendString(append(b, `,"reason":`...), d.Reason)
	b = appendString(append(b, `,"words":`...), d.Description)
	b = appendKnown(b, `,"bpf":`, d.BPF)
	b = appendTrue(b, `,"fragment":true`, d.Fragment)
	b = appendString(append(b, `,"node":`...), d.Node)
	b = appendUint(append(b, `,"netns":`...), d.NetNS)
	b = appendKnown(b, `,"netns_name":`, d.NetNSName)
	b = appendString(append(b, `,"ifname":`...), d.IfName)
	b = d.Offset.appendJSON(append(b, `,"offset_seconds":`...))
	if d.Held != 0 {
		b = d.Held.appendJSON(append(b, `,"held_seconds":`...))
	}
	if d.Dst.IsValid() {
		b = appendAddrPort(append(b, `,"dst":`...), d.Dst)
	}
	if d.ConntrackMax != 0 {
		b = appendUint(append(b, `,"conntrack_count":`...), d.ConntrackCount)
		b = appendUint(append(b, `,"conntrack_max":`...), d.ConntrackMax)
	}
	return append(b, '}')
}

func (r *Rejection) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"why":`...), r.Why)
	b = appendAddrPort(append(b, `,"src":`...), r.Src)
	b = appendString(append(b, `,"rcode":`...), r.RCode)
	b = appendInt(append(b, `,"size":`...), r.Size)
	return append(r.Offset.appendJSON(append(b, `,"offset_seconds":`...)), '}')
}

func (r *Reset) appendJSON(b []byte) []byte {
	b = appendAddrPort(append(b, `{"src":`...), r.Src)
	return append(r.Offset.appendJSON(append(b, `,"offset_seconds":`...)), '}')
}
