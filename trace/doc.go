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
// Who records only a share of the lookups decides by the trace id, so that all
// who use the same rate record the same ones, and who uses a lower rate records
// some of those (see [Sampled]). It takes one comparison of whole numbers:
//
//	last 4 bytes of trace_id, big-endian  <  rate x 2^32, rounded down
//
// Test vectors, for the flows above in this order:
//
//	last 4 bytes  smallest rate that passes
//	0x9b794954    0x9b794955 / 2^32 = 0.60731943...
//	0xc329e410    0xc329e411 / 2^32 = 0.76235795...
//	0x4f089358    0x4f089359 / 2^32 = 0.30872460...
//
// # Records
//
// A record is one JSON object on a line. [Query] is what CoreDNS did with a
// query, [Refresh] is work that a query set off in the background, [Exchange]
// is a query and its response on the wire, [Trace] is all of it joined.
// Encoding appends to a caller's buffer and uses no reflection, because the
// CoreDNS plugin does it for every query; decoding is strict, because a record
// that is misread misleads whoever is on call. The same in JSON Schema is
// records.schema.json, beside this file.
package trace
