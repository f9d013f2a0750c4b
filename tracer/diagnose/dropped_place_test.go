package diagnose

import (
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// What a place says where the kernel gives no reason: no more than it may.
func TestPlaceWithoutReason(t *testing.T) {
	for _, tc := range []struct {
		drop             trace.Drop
		noSocket, buffer bool
		doubt            string // in the finding's summary
	}{
		{trace.Drop{Where: "__udp4_lib_rcv"}, true, false, "or it was malformed"},
		{trace.Drop{Where: "tcp_v6_rcv"}, true, false, "or it was malformed"},
		{trace.Drop{Where: "__udp4_lib_rcv", Reason: "NO_SOCKET"}, true, false, ""},
		{trace.Drop{Where: "__udp4_lib_rcv", Reason: "UDP_CSUM"}, false, false, ""},
		{trace.Drop{Where: "__udp_enqueue_schedule_skb"}, false, true, ""},
		{trace.Drop{Where: "udp_queue_rcv_one_skb"}, false, true, "filter or its checksum"},
		{trace.Drop{Where: "udp_queue_rcv_one_skb", Reason: "SOCKET_RCVBUFF"}, false, true, ""},
		{trace.Drop{Where: "udp_queue_rcv_one_skb", Reason: "SOCKET_FILTER"}, false, false, ""},
	} {
		tc.drop.Message = trace.MessageQuery
		tr := &trace.Trace{Exchange: &trace.Exchange{Drops: []trace.Drop{tc.drop}}}
		s := subjects(tr)[0]
		lookup, isLookup := droppedNoSocket(nil, tr, s, &tc.drop)
		full, isFull := droppedReceiveBuffer(nil, tr, s, &tc.drop)
		if isLookup != tc.noSocket || isFull != tc.buffer {
			t.Errorf("%+v: no socket %t, buffer %t", tc.drop, isLookup, isFull)
		}
		summary := lookup.Summary + full.Summary
		if doubt := strings.Contains(summary, ", or "); doubt != (tc.doubt != "") || !strings.Contains(summary, tc.doubt) {
			t.Errorf("%+v: %q, expected %q in it", tc.drop, summary, tc.doubt)
		}
	}
}
