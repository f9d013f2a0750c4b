package diagnose

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedNoSocket finds a query that reached a host on which nothing listens.
// Proof: the kernel's drop there with the reason NO_SOCKET or, on kernels before
// 5.17, in a function that looks the socket up.
func droppedNoSocket(_ *memory, _ *trace.Trace, l leg) (trace.Finding, bool) {
	d := l.exchange.Drop
	if !noSocket(d) {
		return trace.Finding{}, false
	}
	return trace.Finding{
		Code:    DroppedNoSocket,
		Summary: fmt.Sprintf("Nothing listened for %s: it was refused in %s.", droppedWhat(l), droppedWhere(d)),
		Advice:  fmt.Sprintf("See that the server runs and listens on port %d there (`ss -lnp`), and that the Service's endpoints are ready.", l.exchange.ServerPort),
	}, true
}

func noSocket(d *trace.Drop) bool {
	if d.Reason != "" {
		return d.Reason == "NO_SOCKET"
	}
	return strings.HasPrefix(d.Where, "__udp") || d.Where == "tcp_v4_rcv" || d.Where == "tcp_v6_rcv"
}
