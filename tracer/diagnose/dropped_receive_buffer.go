package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// droppedReceiveBuffer finds a packet for which its receiver's socket had no
// room. Proof: the kernel's drop with the reason SOCKET_RCVBUFF, SOCKET_BACKLOG
// or PROTO_MEM or, on kernels before 5.17, in the function that queues datagrams
// (net/ipv4/udp.c).
func droppedReceiveBuffer(_ *memory, t *trace.Trace, s subject, d *trace.Drop) (trace.Finding, bool) {
	if !receiveBuffer(d) {
		return trace.Finding{}, false
	}
	whose := "the server's"
	advice := "It reads too slowly: see its CPU limit and load, add replicas or a node-local cache; for bursts, raise net.core.rmem_default."
	if d.Message == trace.MessageResponse {
		whose = "the client's"
		advice = "The client reads more slowly than responses come: see its CPU limit, and what its process is busy with."
	}
	summary := fmt.Sprintf("There was no room for %s in %s receive buffer in %s.", droppedWhat(s, d), whose, droppedIn(t, d))
	if d.Reason == "" && d.Where != enqueue {
		summary = fmt.Sprintf("There was no room for %s in %s receive buffer in %s, or the socket's filter or its checksum stopped it: the kernel gives no reason.",
			droppedWhat(s, d), whose, droppedIn(t, d))
	}
	return trace.Finding{
		Code:    DroppedReceiveBuffer,
		Summary: summary,
		Advice:  advice,
	}, true
}

// enqueue frees a datagram only where there is no room (net/ipv4/udp.c).
const enqueue = "__udp_enqueue_schedule_skb"

func receiveBuffer(d *trace.Drop) bool {
	switch d.Reason {
	case "SOCKET_RCVBUFF", "SOCKET_BACKLOG", "PROTO_MEM":
		return true
	case "":
		return d.Where == "udp_queue_rcv_one_skb" || d.Where == "udpv6_queue_rcv_one_skb" || d.Where == enqueue
	}
	return false
}
