package diagnose

import (
	"fmt"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedNoSocket finds a query that reached a host on which nothing listens.
// Proof: the kernel's drop there with the reason NO_SOCKET or, on kernels before
// 5.17, in a function that looks the socket up.
func droppedNoSocket(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	if !noSocket(d) {
		return trace.Finding{}, false
	}
	summary := fmt.Sprintf("Nothing listened for %s: it was refused in %s.", droppedWhat(s, d), droppedWhere(t, d))
	if d.Reason == "" {
		summary = fmt.Sprintf("Nothing listened for %s, or it was malformed: it was refused in %s, and the kernel gives no reason.", droppedWhat(s, d), droppedWhere(t, d))
	}
	if plainToTLSPort(s.exchange) {
		return trace.Finding{
			Code:    DroppedNoSocket,
			Summary: summary,
			Advice:  plainAtTLSAdvice,
		}, true
	}
	return trace.Finding{
		Code:    DroppedNoSocket,
		Summary: summary,
		Advice:  fmt.Sprintf("See that the server runs and listens on port %d there (`ss -lnp`), and that the Service's endpoints are ready.", s.exchange.ServerPort),
	}, true
}

func noSocket(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NO_SOCKET"
	}
	return slices.Contains(socketLookups, d.Where)
}

// socketLookups look the socket up (net/ipv4/udp.c, net/ipv6/udp.c, net/ipv4/tcp_ipv4.c,
// net/ipv6/tcp_ipv6.c). They free a packet with a wrong checksum too, and TCP's what a
// filter or IPsec refuses: all rare beside a port that nobody has open.
var socketLookups = []string{"__udp4_lib_rcv", "__udp6_lib_rcv", "udp_rcv", "udpv6_rcv", "tcp_v4_rcv", "tcp_v6_rcv"}
