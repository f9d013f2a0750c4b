// Package trace is dnstrace's contract in Go: how a lookup is named, how its
// trace context travels in EDNS, and the records that every part of dnstrace
// writes and reads.
//
// # Identity
//
// Observers that never talk to each other must name the same lookup alike, so
// names are computed from what each of them sees on the wire:
//
//	flow     = first 12 bytes of SHA-256 over, big-endian:
//	           transport (1; 17 UDP, 6 TCP), client address (16; IPv4 as
//	           ::ffff:a.b.c.d) and port (2) as the server sees them, DNS ID (2),
//	           QTYPE (2), QCLASS (2), lower-cased QNAME in wire format
//	trace_id = Unix time of the query rounded down to 256 s (4), then flow (12)
//
// An attempt to open a TCP connection on which nothing was asked has 0 for DNS
// ID, QTYPE and QCLASS, and no bytes of QNAME.
//
// Test vectors for flow:
//
//	UDP 10.244.0.4:50202          id 0xc1a1  A    IN  Example.COM.  41156cb99fd7e9f79b794954
//	TCP [fd00:10:244::4]:44601    id 0xa9ba  AAAA IN  example.com.  880ca82742bca2d1c329e410
//	UDP 10.244.0.4:1              id 0       NS   IN  .             b248aa3c33ea8e724f089358
//	TCP 10.244.0.4:44601          no question                       6c1ede615009fe3159c908cf
//
// # Sampling
//
// Sampling decides by what the client's query shows on the wire, so that CoreDNS, the tracer
// and its programs in the kernel record the same lookups at the same rate, and a subset of
// them at a lower one. It takes some ten operations on 32-bit numbers, without carry (see
// [SamplingHash], [Sampled]):
//
//	x  = DNS ID << 16 | client port     over TCP the DNS ID counts as 0
//	x ^= x >> 16;  x *= 0x7feb352d
//	x ^= x >> 15;  x *= 0x846ca68b
//	x ^= x >> 16
//	sampled if  x  <  rate x 2^32, rounded down
//
// Over TCP all queries of a connection are sampled alike, since few of its segments
// show an ID. What is asked again over TCP, or from another port, is another query and
// sampled by itself; so is the query that a server sends to an upstream.
//
// The client port is that of the query where the decision is made: CoreDNS takes
// the port that it sees. Where a translation gives the client another port, CoreDNS and
// the tracer agree if the tracer saw the translation ([NAT]); the programs in the kernel
// take the port that the client used, as far as connection tracking tells them.
//
// Test vectors:
//
//	                          x           smallest rate that passes, (x + 1) / 2^32
//	UDP  id 0xc1a1  port 50202  0x405d4d1b  0.25142366...
//	UDP  id 0x0000  port 1      0x688990c0  0.40834908...
//	UDP  id 0x0001  port 0      0xdcafae10  0.86205566...
//	UDP  id 0xffff  port 65535  0x6768824a  0.40393843...
//	TCP  id 0xa9ba  port 44601  0x51d32c72  0.31962850...
//	TCP  id 0x0000  port 44601  0x51d32c72  0.31962850...
//
// # Records
//
// A record is one JSON object on a line. [Query] is what CoreDNS did with a
// query, [Refresh] is work that a query set off in the background, [Exchange]
// is a query and its response on the wire, [Trace] is all of it joined.
// Encoding appends to a caller's buffer and uses no reflection, because the
// CoreDNS plugin does it for every query; decoding is strict, because a record
// that is misread misleads the person on call. The same in JSON Schema is
// records.schema.json, beside this file.
package trace
