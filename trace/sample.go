package trace

// SamplingHash returns the number by which a query is sampled, from what its packet
// shows at a fixed place: the DNS ID and the port of the client, 16 bits each. transport
// is the IANA number. Over TCP the ID counts as 0, so that a connection is sampled with
// all that is asked on it.
//
// It is one to one (the mixing function lowbias32), so that IDs and ports that are
// counted up, drawn at random or always the same are sampled alike.
func SamplingHash(transport uint8, id, clientPort uint16) uint32 {
	if transport != TransportUDP {
		id = 0
	}
	x := uint32(id)<<16 | uint32(clientPort)
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	x *= 0x846ca68b
	return x ^ x>>16
}

// SampleThreshold returns what [Sampled] compares with for a rate: the rate
// times 2^32, rounded down. A rate of 1 or more lets every query pass, one of 0 or
// less none.
func SampleThreshold(rate float64) uint64 {
	switch {
	case rate >= 1:
		return 1 << 32
	case rate > 0:
		return uint64(rate * (1 << 32))
	}
	return 0
}

// Sampled reports whether a query with this [SamplingHash] is among the share rate of
// all queries, the same for every observer of its packet: the hash is below
// [SampleThreshold]. A query that passes at one rate passes at every higher one.
func Sampled(hash uint32, rate float64) bool {
	return uint64(hash) < SampleThreshold(rate)
}

// SamplingHash returns that of the query that CoreDNS got.
func (q *Query) SamplingHash() uint32 { return q.samplingHash(q.ClientPort) }

// SamplingHash returns that of the query as its server sees it, as far as known.
func (e *Exchange) SamplingHash() uint32 {
	if e.NAT != nil && e.NAT.ClientPort != nil {
		return e.samplingHash(*e.NAT.ClientPort)
	}
	return e.samplingHash(e.ClientPort)
}

func (d *DNS) samplingHash(port uint16) uint32 {
	transport := uint8(TransportTCP)
	if d.Protocol == "udp" {
		transport = TransportUDP
	}
	return SamplingHash(transport, d.ID, port)
}
