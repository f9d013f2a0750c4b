package pcap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/dnstrace/dnstrace/trace"
)

// errNothing is returned for lookups without observed packets.
var errNothing = errors.New("no packet of these lookups was seen: their records come from CoreDNS alone, or hold too little to make a packet of")

// ttl stands for what is not known.
const ttl = 64

// window is what a TCP header has to say of its buffer.
const window = 65535

// wrap puts a message of size bytes, of which wire is the front, into the headers
// that it had at a place, and returns the packet and its length on the wire.
func wrap(s *trace.Sighting, protocol string, response bool, wire []byte, size int) (data []byte, length int, err error) {
	src, dst := s.Src.Addr().Unmap(), s.Dst.Addr().Unmap()
	var transport gopacket.SerializableLayer
	payload := wire
	number, header := layers.IPProtocolUDP, 8
	if protocol == "tcp" {
		number, header = layers.IPProtocolTCP, 20
		payload = append(binary.BigEndian.AppendUint16(nil, uint16(size)), wire...)
		size += 2
	}
	if size > math.MaxUint16-header-20 {
		return nil, 0, fmt.Errorf("%d bytes do not fit in one packet", size)
	}
	var network gopacket.NetworkLayer
	var ip gopacket.SerializableLayer
	switch {
	case src.Is4() && dst.Is4():
		v4 := &layers.IPv4{Version: 4, IHL: 5, TTL: ttl, Protocol: number, Length: uint16(20 + header + size), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		network, ip = v4, v4
		length = 20
	case src.Is6() && dst.Is6():
		v6 := &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: number, Length: uint16(header + size), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		network, ip = v6, v6
		length = 40
	default:
		return nil, 0, fmt.Errorf("from %s to %s", s.Src, s.Dst)
	}
	whole := len(payload) == size
	if protocol == "tcp" {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(s.Src.Port()), DstPort: layers.TCPPort(s.Dst.Port()), Seq: 1, Ack: 1, DataOffset: 5, ACK: true, PSH: true, Window: window}
		transport, err = tcp, tcp.SetNetworkLayerForChecksum(network)
	} else {
		udp := &layers.UDP{SrcPort: layers.UDPPort(s.Src.Port()), DstPort: layers.UDPPort(s.Dst.Port()), Length: uint16(header + size)}
		transport, err = udp, udp.SetNetworkLayerForChecksum(network)
	}
	if err != nil {
		return nil, 0, err
	}
	buf := gopacket.NewSerializeBuffer()
	// Of a part of the message no checksum can be made: it stays 0. Nor may the
	// lengths be those of the part.
	options := gopacket.SerializeOptions{ComputeChecksums: whole}
	if err := gopacket.SerializeLayers(buf, options, ip, transport, gopacket.Payload(payload)); err != nil {
		return nil, 0, err
	}
	return buf.Bytes(), length + header + size, nil
}
