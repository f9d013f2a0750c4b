// Package otlp sends records to an OpenTelemetry collector, or to any backend that
// takes OTLP (Loki, Tempo, Jaeger, ...), over HTTP or gRPC.
//
// # Logs
//
// Every record becomes a log record. Its body is the record's line of JSON as it
// stands, so that what Loki keeps is what a file would hold and `dnstrace explain
// --loki` reads it back. Its attributes have the names of the record's fields:
// record, qname, qtype, rcode, outcome, findings, and pod and pod_namespace of the
// client; the resource has those by which a shipper of files would label it. Trace
// id and span id are those of the span described below. Severity: ERROR where the
// client got no usable answer, WARN where there is a finding, else INFO.
//
// # Spans
//
// A trace record becomes spans. Ids are derived, so parents are right though the
// senders never talked; and each span has one sender, so nothing comes twice:
//
//	span            kind      id derived from                     sent by the tracer that
//	lookup TYPE     client    above, "client", 0                  saw the query leave its client
//	coredns TYPE    server    the record's span_id                has CoreDNS's record of it
//	upstream TYPE   client    server span, "attempt", its number  has CoreDNS's record of it
//	refresh TYPE    internal  server span, "refresh", number of   has CoreDNS's record of it
//	                          its first attempt
//	observed TYPE   internal  client span, "observed", node       saw packets on the way, and is
//	                                                              none of the former
//
// Above the client span is nothing or, where CoreDNS adopted a TRACEPARENT, the
// span that it names, which is also the server span's parent. A TRACEPARENT of another
// trace than the span's becomes a link. Below a server without records, upstream queries
// hang from the client span and are numbered in order. A server that was asked by
// another and whose record was joined to that attempt hangs from the attempt's
// span, whether or not it knew; but where it adopted a TRACEPARENT of another trace,
// as of a dnsdist that traces, it is in that one, with all below it.
//
// Packets, drops, ICMP errors and findings are events of the span whose exchange
// they belong to; so are the plugins that the query passed in CoreDNS.
//
// A lookup of which something comes after it was passed on, such as a late response, is sent
// again under the same ids: the later version is more complete.
//
// # Delivery
//
// Logs and spans have a queue and a sender each. A queue that is full loses what
// comes; what cannot be delivered is tried again, with growing pauses, for
// [maxTries] at most. Whatever is lost is counted.
package otlp
