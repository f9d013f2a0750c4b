package exchange

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// Some servers do not repeat a question that they could not read.
func TestResponseWithoutQuestion(t *testing.T) {
	bare := func(id uint16) []byte {
		m := new(dns.Msg)
		m.Id, m.Response, m.Rcode = id, true, dns.RcodeFormatError
		return pack(t, m)
	}
	for _, protocol := range []uint8{trace.TransportUDP, trace.TransportTCP} {
		f := newFeed(t)
		q, r := query(t, "a.example.", 7), bare(7)
		over := func(p *capture.Packet) { p.Protocol = protocol }
		if protocol == trace.TransportTCP {
			q, r = framed(q), framed(r)
			f.packet(capture.TX, podNS, 2, pod, service, nil, tcp(0, capture.FlagSYN))
			f.packet(capture.TX, serverNS, 2, service, pod, nil, tcp(0, capture.FlagSYN|capture.FlagACK))
			over = tcp(1, capture.FlagACK)
		}
		f.packet(capture.TX, podNS, 2, pod, service, q, over)
		f.skb++
		f.packet(capture.TX, serverNS, 2, service, pod, r, over)
		f.packet(capture.RX, podNS, 2, service, pod, r, over)
		f.after(time.Second)
		if ex := f.one(); ex.Outcome != trace.OutcomeAnswered || ex.RCode != "FORMERR" || len(ex.Path) != 3 {
			t.Errorf("protocol %d: %s %s, %d sightings", protocol, ex.Outcome, ex.RCode, len(ex.Path))
		}
	}
}
