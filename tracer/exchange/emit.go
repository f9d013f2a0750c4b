package exchange

import (
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// emitted is the record of an exchange, in one allocation with what most have: thousands of
// them wait in the assembler.
type emitted struct {
	record                 trace.Exchange
	path                   trace.PathMemory
	nat                    trace.NAT
	duration               trace.Seconds
	size, answers          int
	minTTL                 uint32
	clientPort, serverPort uint16 // of nat
}

// emit returns the record of an exchange as it stands; the receiver owns it.
func (t *Table) emit(ex *open) *trace.Exchange {
	ex.purge()
	t.study(ex)
	v := t.view(ex)
	e := &emitted{}
	r := &e.record
	r.V, r.Record, r.Time, r.Node = trace.Version, trace.KindExchange, ex.wall, t.cfg.Node
	e.question(ex)
	e.identify(ex)
	e.respond(ex)
	e.translate(ex)
	t.name(ex, r)
	r.Outcome, r.Milestones = v.outcome, v.Milestones
	if v.outcome == trace.OutcomeAnswered {
		e.duration = trace.Seconds(v.end)
		r.Duration = &e.duration
	}
	r.Transmissions, r.Outstanding = max(int(ex.sendings), 1), int(ex.outstanding)
	r.Path, r.PathOmitted = ex.path.CloneIn(&e.path), int(ex.omitted)
	r.Drops, r.Rejected = slices.Clone(ex.drops), slices.Clone(ex.rejected)
	if v.outcome == trace.OutcomeDropped && ex.wentAstray() {
		r.Drops = append(r.Drops, *ex.astray)
	}
	r.ICMP, r.Reset, r.Fragments = ex.icmp, ex.reset, ex.fragments()
	r.LostEvents, r.Replaces, r.ListenFull, r.ResentSegments = ex.lostEvents, ex.reported != 0, ex.listenFull, int(ex.resent)
	return r
}

// question fills in what was asked, and of whom.
func (e *emitted) question(ex *open) {
	r := &e.record
	r.ClientIP, r.ClientPort = ex.key.client.Addr(), ex.key.client.Port()
	r.ServerIP, r.ServerPort = ex.server.Addr(), ex.server.Port()
	r.Protocol, r.BufSize = "udp", int(ex.bufSize)
	if ex.key.protocol == trace.TransportTCP {
		r.Protocol = "tcp"
	}
	if len(ex.question) > 0 {
		q := splitQuestion(ex.question)
		r.QName = ex.name
		r.QType, r.QClass = typeName(q.qtype), className(q.qclass)
		r.ID, r.Opcode, r.RequestSize, r.DNSSECOK = ex.key.id, int(ex.opcode), int(ex.size), ex.dnssec
	}
	r.Traceparent = ex.stamp
}

// identify names the lookup: the server sees the translated client, whose name counts.
func (e *emitted) identify(ex *open) {
	var q question
	if len(ex.question) > 0 {
		q = splitQuestion(ex.question)
	}
	r := &e.record
	client := ex.key.client
	if ex.nat.client.IsValid() {
		client = ex.nat.client
	}
	r.Flow = trace.NewFlow(ex.key.protocol, client, ex.key.id, q.qtype, q.qclass, q.name)
	r.TraceID = trace.NewTraceID(r.Time, r.Flow)
}

// respond fills in what was answered.
func (e *emitted) respond(ex *open) {
	a, r := ex.answer, &e.record
	r.Respelled = ex.respelled
	if a == nil && !ex.refusedAll() {
		a = ex.guess
	}
	if a == nil {
		return
	}
	r.RCode, r.Truncated, r.Flags = trace.RCodeName(int(a.rcode)), a.flags&bitTC != 0, setFlags(a.flags)
	e.size, e.answers, e.minTTL = int(a.size), int(a.records), a.minTTL
	r.AnswerCount, r.Answers, r.ExtendedError = &e.answers, a.answers, a.extended
	if a.part {
		e.size = ex.fragmentedSize()
	}
	if e.size > 0 {
		r.ResponseSize = &e.size
	}
	if a.hasTTL {
		r.MinTTL = &e.minTTL
	}
}

// refusedAll tells whether no response is left that its client may have taken.
func (ex *open) refusedAll() bool { return ex.firstOf(inResponse) < 0 }

// translate fills in the addresses after translation.
func (e *emitted) translate(ex *open) {
	ex.fromElsewhere()
	n := &ex.nat
	if !n.server.IsValid() && !n.client.IsValid() && n.source != trace.NATConntrack {
		return
	}
	e.nat.Source = n.source
	e.record.NAT = &e.nat
	if n.server.IsValid() {
		e.serverPort = n.server.Port()
		e.nat.ServerIP, e.nat.ServerPort = n.server.Addr(), &e.serverPort
	}
	if n.client.IsValid() {
		e.clientPort = n.client.Port()
		e.nat.ClientIP, e.nat.ClientPort = n.client.Addr(), &e.clientPort
	}
}

// purge takes the sightings of responses that were rejected out of the path.
func (ex *open) purge() {
	refused := func(m *mark) bool { return ex.journeys[m.journey].why > stray }
	if !slices.ContainsFunc(ex.marks, func(m mark) bool { return refused(&m) }) {
		return
	}
	var path trace.Path
	kept := ex.marks[:0]
	for i, m := range ex.marks {
		if !refused(&m) {
			ex.path.CopyTo(&path, i)
			kept = append(kept, m)
		}
	}
	for i := range ex.pieces {
		ex.pieces[i].sighting = -1
	}
	ex.path, ex.marks = path, kept
}
