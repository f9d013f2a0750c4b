package exchange

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// step is one packet of a lookup at one place.
type step struct {
	kind     capture.Kind
	netns    uint32
	ifindex  uint32
	skb      uint64
	response bool
	src, dst netip.AddrPort
	change   func(*capture.Packet)
}

const bystanderNS = 9

func because(reason string) func(*capture.Packet) {
	return func(p *capture.Packet) { p.Reason, p.NotForHost = reason, reason == "OTHERHOST" }
}

func (f *feed) steps(q, r []byte, steps []step) {
	for _, s := range steps {
		payload := q
		if s.response {
			payload = r
		}
		f.skb = s.skb + f.base
		change := s.change
		if change == nil {
			change = func(*capture.Packet) {}
		}
		f.packet(s.kind, s.netns, s.ifindex, s.src, s.dst, payload, change)
	}
}

// words writes the milestones as the sightings that show them: left, arrived and read
// of the query, then of the response.
func milestones(ex *trace.Exchange) string {
	word := func(m trace.Milestone) string {
		switch {
		case m == trace.NotObservable:
			return "?"
		case m.Seen():
			return fmt.Sprint(m.Index())
		}
		return "-"
	}
	q, r := ex.Milestones.Query, ex.Milestones.Response
	return word(q.Left) + word(q.Arrived) + word(q.Read) + " " + word(r.Left) + word(r.Arrived) + word(r.Read)
}

var everything = capture.Observes{DeliveredUDP: true, DeliveredTCP: true, ReadUDP: true, ReadTCP: true}

const tx, rx, delivered, read, drop = capture.TX, capture.RX, capture.Delivered, capture.Read, capture.Drop

// bridged is a lookup over a bridge: a pod, the node, a server.
var bridged = []step{
	{tx, podNS, 2, 1, false, pod, server, nil}, {rx, nodeNS, 5, 1, false, pod, server, nil},
	{tx, nodeNS, 6, 1, false, pod, server, nil}, {rx, serverNS, 2, 1, false, pod, server, nil},
	{tx, serverNS, 2, 2, true, server, pod, nil}, {rx, nodeNS, 6, 2, true, server, pod, nil},
	{tx, nodeNS, 5, 2, true, server, pod, nil}, {rx, podNS, 2, 2, true, server, pod, nil},
}

// redirected is one whose packets go into the pods by bpf_redirect_peer, and whose
// Service is translated by programs.
var redirected = []step{
	{tx, podNS, 2, 1, false, pod, service, nil}, {rx, nodeNS, 5, 1, false, pod, service, nil},
	{tx, serverNS, 2, 2, true, backend, pod, nil}, {rx, nodeNS, 6, 2, true, backend, pod, nil},
}

func TestMilestones(t *testing.T) {
	for _, tc := range []struct {
		name     string
		observes capture.Observes
		before   []step // a lookup before, from which the table learns
		steps    []step
		want     string // milestones
		outcome  string
		duration time.Duration
		drops    int
	}{
		{name: "bridge", steps: bridged, want: "03? 47?", outcome: trace.OutcomeAnswered, duration: 7000},
		{name: "bridge, with sockets, of which one delivery is not seen", observes: everything, steps: append(append([]step{}, bridged[:4]...),
			step{read, serverNS, 0, 1, false, pod, server, nil}, bridged[4], bridged[7],
			step{delivered, podNS, 0, 2, true, server, pod, nil}, step{read, podNS, 0, 2, true, server, pod, nil}),
			want: "034 578", outcome: trace.OutcomeAnswered, duration: 7000},
		{name: "silent server", steps: bridged[:4], want: "03? --?", outcome: trace.OutcomeUnanswered},
		{name: "server that does not read", observes: everything, steps: append(append([]step{}, bridged[:4]...), step{delivered, serverNS, 0, 1, false, pod, server, nil}),
			want: "04- ---", outcome: trace.OutcomeUnanswered},
		{name: "not delivered", observes: everything, steps: bridged[:4], want: "0-- ---", outcome: trace.OutcomeUnanswered},
		{name: "not delivered as far as seen, where others are answered", observes: everything, before: bridged, steps: bridged[:4], want: "03- ---", outcome: trace.OutcomeUnanswered},
		{name: "query lost on the way", before: bridged, steps: bridged[:2], want: "0-? --?", outcome: trace.OutcomeUnanswered},
		{name: "came once, and was lost when it was sent again", before: bridged, steps: append(append([]step{}, bridged[:4]...),
			step{tx, podNS, 2, 5, false, pod, server, nil}, step{rx, nodeNS, 5, 5, false, pod, server, nil}), want: "03? --?", outcome: trace.OutcomeUnanswered},
		{name: "query dropped on the way", steps: append(append([]step{}, bridged[:2]...), step{drop, nodeNS, 5, 1, false, pod, server, because("NETFILTER_DROP")}),
			want: "0-? --?", outcome: trace.OutcomeDropped, drops: 1},
		{name: "query dropped at its socket", observes: everything, steps: append(append([]step{}, bridged[:4]...), step{drop, serverNS, 2, 1, false, pod, server, because("SOCKET_RCVBUFF")}),
			want: "03- ---", outcome: trace.OutcomeDropped, drops: 1},
		{name: "no room in the queue of the socket, redirected", observes: everything, steps: []step{
			redirected[0], redirected[1], {delivered, serverNS, 0, 1, false, pod, backend, nil}, {drop, serverNS, 0, 1, false, pod, backend, because("SOCKET_RCVBUFF")},
		}, want: "02- ---", outcome: trace.OutcomeDropped, drops: 1},
		{name: "response lost on the way", before: bridged, steps: bridged[:6], want: "03? 4-?", outcome: trace.OutcomeUnanswered},
		{name: "response dropped at its socket", steps: append(append([]step{}, bridged...), step{drop, podNS, 2, 2, true, server, pod, because("NO_SOCKET")}),
			want: "03? 4-?", outcome: trace.OutcomeDropped, drops: 1},
		{name: "redirected, with sockets", observes: everything, steps: []step{
			redirected[0], redirected[1], {delivered, serverNS, 0, 1, false, pod, backend, nil}, {read, serverNS, 0, 1, false, pod, backend, nil},
			redirected[2], redirected[3], {delivered, podNS, 0, 2, true, service, pod, nil}, {read, podNS, 0, 2, true, service, pod, nil},
		}, want: "023 467", outcome: trace.OutcomeAnswered, duration: 6000},
		{name: "redirected, no sockets: answered, as far as it is seen", steps: redirected, want: "0?? 2??", outcome: trace.OutcomeAnswered, duration: 3000},
		{name: "redirected, no sockets, silent", before: redirected, steps: redirected[:2], want: "0?? ???", outcome: trace.OutcomeUnanswered},
		{name: "redirected, with sockets, response lost", observes: everything, steps: []step{
			redirected[0], redirected[1], {delivered, serverNS, 0, 1, false, pod, backend, nil}, redirected[2], redirected[3],
		}, want: "02- 3--", outcome: trace.OutcomeUnanswered},
		{name: "flooded to a bystander that drops it", steps: []step{
			bridged[0], bridged[1], bridged[2], {tx, nodeNS, 7, 3, false, pod, server, nil}, bridged[3],
			{rx, bystanderNS, 2, 3, false, pod, server, nil}, {drop, bystanderNS, 2, 3, false, pod, server, because("IP_INNOROUTES")},
		}, want: "04? --?", outcome: trace.OutcomeUnanswered, drops: 1},
		{name: "flooded to a bystander that it is not for", steps: []step{
			bridged[0], bridged[1], bridged[2], {tx, nodeNS, 7, 3, false, pod, server, nil}, bridged[3],
			{rx, bystanderNS, 2, 3, false, pod, server, nil}, {drop, bystanderNS, 2, 3, false, pod, server, because("OTHERHOST")},
		}, want: "04? --?", outcome: trace.OutcomeUnanswered},
		{name: "a wrong link address: only bystanders get it", steps: []step{
			bridged[0], bridged[1], {tx, nodeNS, 7, 3, false, pod, server, nil}, {rx, bystanderNS, 2, 3, false, pod, server, nil},
			{drop, bystanderNS, 2, 3, false, pod, server, because("OTHERHOST")}, {tx, nodeNS, 8, 1, false, pod, server, nil},
			{rx, serverNS, 2, 1, false, pod, server, nil}, {drop, serverNS, 2, 1, false, pod, server, because("OTHERHOST")},
		}, want: "0-? --?", outcome: trace.OutcomeDropped, drops: 1},
		{name: "flooded to a bystander, answered", steps: append([]step{
			bridged[0], bridged[1], bridged[2], {tx, nodeNS, 7, 3, false, pod, server, nil}, bridged[3],
			{rx, bystanderNS, 2, 3, false, pod, server, nil},
		}, bridged[4:]...), want: "04? 69?", outcome: trace.OutcomeAnswered, duration: 9000},
		{name: "flooded to a bystander that drops it, server beyond", steps: []step{
			bridged[0], bridged[1], {tx, nodeNS, 7, 3, false, pod, server, nil}, {rx, bystanderNS, 2, 3, false, pod, server, nil},
			{tx, nodeNS, 3, 1, false, pod, server, nil}, {drop, bystanderNS, 2, 3, false, pod, server, because("NETFILTER_DROP")},
		}, want: "0?? ???", outcome: trace.OutcomeUnanswered, drops: 1},
		{name: "server beyond", steps: []step{
			{tx, podNS, 2, 1, false, pod, second, nil}, {rx, nodeNS, 5, 1, false, pod, second, nil}, {tx, nodeNS, 3, 1, false, pod, second, nil},
			{rx, nodeNS, 4, 2, true, second, pod, nil}, {tx, nodeNS, 5, 2, true, second, pod, nil}, {rx, podNS, 2, 2, true, second, pod, nil},
		}, want: "0?? ?5?", outcome: trace.OutcomeAnswered, duration: 5000},
		{name: "server whose packets are not known to be DNS", steps: []step{
			{tx, podNS, 2, 1, false, pod, service, nil}, {rx, nodeNS, 5, 1, false, pod, service, nil}, {tx, nodeNS, 6, 1, false, pod, server, withNAT(dnat)},
			{tx, nodeNS, 5, 2, true, service, pod, withNAT(dnat)}, {rx, podNS, 2, 2, true, service, pod, nil},
		}, want: "0?? ?4?", outcome: trace.OutcomeAnswered, duration: 4000},
		{name: "client beyond, the response leaves by another device", steps: []step{
			{rx, nodeNS, 3, 1, false, pod, server, nil}, {tx, nodeNS, 6, 1, false, pod, server, nil}, {rx, serverNS, 2, 1, false, pod, server, nil},
			{tx, serverNS, 2, 2, true, server, pod, nil}, {rx, nodeNS, 6, 2, true, server, pod, nil}, {tx, nodeNS, 4, 2, true, server, pod, nil},
		}, want: "?2? 3??", outcome: trace.OutcomeAnswered, duration: 5000},
		{name: "client beyond, response lost", steps: []step{
			{rx, nodeNS, 3, 1, false, pod, server, nil}, {tx, nodeNS, 6, 1, false, pod, server, nil}, {rx, serverNS, 2, 1, false, pod, server, nil},
			{tx, serverNS, 2, 2, true, server, pod, nil}, {rx, nodeNS, 6, 2, true, server, pod, nil},
		}, want: "?2? 3??", outcome: trace.OutcomeUnanswered},
		{name: "both in one namespace", steps: []step{
			{tx, nodeNS, 1, 1, false, node, server, nil}, {rx, nodeNS, 1, 1, false, node, server, nil},
			{tx, nodeNS, 1, 2, true, server, node, nil}, {rx, nodeNS, 1, 2, true, server, node, nil},
		}, want: "01? 23?", outcome: trace.OutcomeAnswered, duration: 3000},
		{name: "client on the node, server in a pod", steps: []step{
			{tx, nodeNS, 4, 1, false, node, server, nil}, {tx, nodeNS, 6, 1, false, node, server, nil}, {rx, serverNS, 2, 1, false, node, server, nil},
			{tx, serverNS, 2, 2, true, server, node, nil}, {rx, nodeNS, 6, 2, true, server, node, nil}, {rx, nodeNS, 4, 2, true, server, node, nil},
		}, want: "02? 34?", outcome: trace.OutcomeAnswered, duration: 4000},
		{name: "server on the node", steps: []step{
			{tx, podNS, 2, 1, false, pod, node, nil}, {rx, nodeNS, 5, 1, false, pod, node, nil}, {rx, nodeNS, 4, 1, false, pod, node, nil},
			{tx, nodeNS, 4, 2, true, node, pod, nil}, {tx, nodeNS, 5, 2, true, node, pod, nil}, {rx, podNS, 2, 2, true, node, pod, nil},
		}, want: "01? 35?", outcome: trace.OutcomeAnswered, duration: 5000},
		{name: "sent to a link address that nobody has", steps: []step{
			{drop, podNS, 0, 1, false, pod, second, func(p *capture.Packet) { p.Reason, p.SentAt = "NEIGH_FAILED", 1 }},
		}, want: "--? --?", outcome: trace.OutcomeDropped, drops: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFeed(t)
			f.table.cfg.Observes = tc.observes
			q, r := query(t, "example.com.", 7), response(t, "example.com.", 7, 0)
			if tc.before != nil {
				f.steps(query(t, "before.example.", 8), response(t, "before.example.", 8, 0), tc.before)
				f.after(time.Minute)
				f.got = nil
				f.base = 1000
			}
			f.steps(q, r, tc.steps)
			f.after(time.Minute)
			ex := f.one()
			if got := milestones(ex); got != tc.want || ex.Outcome != tc.outcome || len(ex.Drops) != tc.drops {
				t.Errorf("milestones %q, want %q; %s, want %s; %d drops", got, tc.want, ex.Outcome, tc.outcome, len(ex.Drops))
			}
			if tc.outcome == trace.OutcomeAnswered && ex.Duration.Duration() != tc.duration {
				t.Errorf("%s, want %s", ex.Duration.Duration(), tc.duration)
			}
			if _, err := trace.Decode(ex.AppendJSON(nil)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A query that waited for a link address is of when it was sent.
func TestTimeOfWhatWaited(t *testing.T) {
	f := newFeed(t)
	f.now = int64(10 * time.Second)
	sent := f.now - int64(3*time.Second)
	f.packet(drop, podNS, 0, pod, second, query(t, "example.com.", 7), func(p *capture.Packet) {
		p.Reason, p.SentAt, p.PID, p.Comm = "NEIGH_FAILED", sent, 42, "getent"
	})
	f.after(time.Minute)
	ex := f.one()
	if !ex.Time.Equal(wall(sent)) || ex.Drops[0].Offset.Duration() != 3*time.Second+time.Microsecond || ex.Transmissions != 1 || ex.Client.Process != "getent" {
		t.Errorf("%s, drop after %s, %d transmissions, %+v", ex.Time, ex.Drops[0].Offset.Duration(), ex.Transmissions, ex.Client)
	}
}
