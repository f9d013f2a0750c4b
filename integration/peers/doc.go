// Package peers tries the plugin with the other servers that speak the TRACEPARENT option:
// dnsdist and PowerDNS Recursor of Debian forky, which get-peers unpacks. Both are real,
// each in a pod of the lab; what passes between them is read from the wire, and from what
// they export. `make test-peers` builds what is needed and runs it.
//
//	client ── dnsdist ── coredns ── recursor ── upstream
//
// Either may be left out. Neither peer speaks OTLP over HTTP or gRPC: both send protocol
// buffers of their own over TCP, with the spans of OTLP in one field (exports_test.go),
// which a test passes on to Jaeger.
package peers
