package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// maxLine bounds a record's line: what trace.Reader accepts.
const maxLine = 4 << 20

// keptExamples is how many wrong lookups of each kind are shown.
const keptExamples = 3

// identity is what client and tracer both know of one lookup.
type identity struct {
	ip   netip.Addr
	port uint16
	id   uint16
	name string
}

func (i identity) String() string {
	return fmt.Sprintf("%s from %s, ID %#04x", i.name, netip.AddrPortFrom(i.ip, i.port), i.id)
}

// traced is what a trace says of a lookup.
type traced struct {
	V         int      `json:"v"`
	Record    string   `json:"record"`
	QName     string   `json:"qname"`
	Outcome   string   `json:"outcome"`
	RCode     *string  `json:"rcode"`
	Exchange  *message `json:"exchange"`
	Query     *message `json:"query"`
	Upstreams []struct {
		Exchange *message   `json:"exchange"`
		Earlier  []*message `json:"earlier"`
	} `json:"upstreams"`
}

// message is who asked what, in an exchange or in CoreDNS's record.
type message struct {
	ClientIP   netip.Addr `json:"client_ip"`
	ClientPort uint16     `json:"client_port"`
	ID         uint16     `json:"id"`
	QName      string     `json:"qname"`
	LostEvents int        `json:"lost_events"` // of an exchange
	Path       []struct{} `json:"path"`        // of an exchange
	Drops      []struct{} `json:"drops"`       // of an exchange
}

// parts are the exchanges and the record that the trace is joined of.
func (t *traced) parts() []*message {
	all := []*message{t.Exchange, t.Query}
	for _, u := range t.Upstreams {
		all = append(append(all, u.Earlier...), u.Exchange)
	}
	return slices.DeleteFunc(all, func(m *message) bool { return m == nil })
}

// foreign returns the name of another lookup that is among the parts, or nothing:
// nobody asks for one name by another here.
func (t *traced) foreign() string {
	for _, m := range t.parts() {
		if m.QName != t.QName {
			return m.QName
		}
	}
	return ""
}

// packets is how many of those that the tracer saw the trace tells.
func (t *traced) packets() (n int) {
	for _, m := range t.parts() {
		n += len(m.Path) + len(m.Drops)
	}
	return n
}

func (t *traced) identity() identity {
	m := t.Exchange
	if m == nil {
		m = t.Query
	}
	if m == nil {
		return identity{name: t.QName}
	}
	return identity{m.ClientIP, m.ClientPort, m.ID, t.QName}
}

// asked is what a client saw of a lookup.
type asked struct {
	kind   string
	result string // the response code, or none
	// left says that the client's namespace went away meanwhile: nobody knows how
	// the lookup would have ended.
	left bool
}

// tally counts the lookups of one kind.
type tally struct {
	asked, answered, traced, recorded int
	failed                            int // did not end as the lookup must
	alone                             int // CoreDNS's record has a trace, without packets
	holes                             int // the trace says that packets of it were lost, and has not all
	wrong, missing, twice, late       int
	foreign                           int // the trace has a part of another lookup
}

// ledger has an entry for each lookup until client and tracer have both spoken of
// it. It may be used from several goroutines.
type ledger struct {
	mu       sync.Mutex
	open     map[identity]asked
	early    map[identity]traced // traces whose client has not spoken yet
	done     map[identity]bool
	alone    map[identity]bool // records without packets
	kinds    map[string]*tally
	legs     int // upstream exchanges that are nobody's
	told     int // packets in all traces
	examples map[string][]string
}

func newLedger() *ledger {
	return &ledger{open: map[identity]asked{}, early: map[identity]traced{}, done: map[identity]bool{}, alone: map[identity]bool{}, kinds: map[string]*tally{},
		examples: map[string][]string{}}
}

// ask enters a lookup that is over, and whether it ended as it must.
func (l *ledger) ask(kind string, r lab.Result, well, left bool) {
	if r.Transmissions == 0 || !r.Local.IsValid() {
		return // nothing was sent
	}
	a := asked{kind: kind, result: "none", left: left}
	if r.Answer != nil {
		a.result = dns.RcodeToString[r.Answer.Rcode]
	}
	key := identity{r.Local.Addr().Unmap(), r.Local.Port(), r.ID, r.Name}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kind(kind)
	k.asked++
	if r.Answer != nil {
		k.answered++
	}
	if !well {
		k.failed++
		l.example(kind+": failed", fmt.Sprintf("%s: %v %v", key, r.Err, r.Answer))
	}
	if t, ok := l.early[key]; ok {
		delete(l.early, key)
		l.match(key, a, t)
		return
	}
	l.open[key] = a
}

func (l *ledger) kind(name string) *tally {
	if l.kinds[name] == nil {
		l.kinds[name] = &tally{}
	}
	return l.kinds[name]
}

// readTraces enters the tracer's traces until their end.
func (l *ledger) readTraces(from io.Reader) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		var t traced
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			return fmt.Errorf("a record that cannot be read: %w: %s", err, lines.Text())
		}
		if t.V != 1 || t.Record != "trace" {
			return fmt.Errorf("not a trace of version 1: %s", lines.Text())
		}
		l.trace(t)
	}
	if err := lines.Err(); err != nil {
		return errors.Join(errors.New("reading the records"), err)
	}
	return nil
}

func (l *ledger) trace(t traced) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := t.identity()
	l.told += t.packets()
	if other := t.foreign(); other != "" {
		l.kind("all").foreign++
		l.example("joined with another lookup", fmt.Sprintf("%s with %s", key, other))
	}
	a, ok := l.open[key]
	switch {
	case ok && t.Exchange != nil:
		delete(l.open, key)
		l.match(key, a, t)
	case l.done[key] && t.Exchange == nil:
		l.kind("all").late++
	case l.done[key]:
		l.kind("all").twice++
		l.example("traced twice", key.String())
	case t.Exchange == nil:
		l.alone[key] = true
	default:
		l.early[key] = t
	}
}

// match compares what client and tracer say.
func (l *ledger) match(key identity, a asked, t traced) {
	k := l.kind(a.kind)
	k.traced++
	if t.Query != nil {
		k.recorded++
	}
	l.done[key] = true
	if a.left {
		return
	}
	answered, code := a.result != "none", "none"
	if t.RCode != nil {
		code = *t.RCode
	}
	// What came after the client had given up is the tracer's to know.
	if answered == (t.Outcome == "answered") && (!answered || code == a.result) {
		return
	}
	if t.Exchange.LostEvents > 0 {
		k.holes++
	} else {
		k.wrong++
		l.example(a.kind+": wrong", fmt.Sprintf("%s: the client saw %s, the trace says %s, %s", key, a.result, t.Outcome, code))
	}
}

func (l *ledger) example(of, what string) {
	if len(l.examples[of]) < keptExamples {
		l.examples[of] = append(l.examples[of], what)
	}
}

// close judges what is left when both have said all.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, a := range l.open {
		if l.alone[key] {
			l.kind(a.kind).alone++
			continue
		}
		l.kind(a.kind).missing++
		l.example(a.kind+": missing", key.String())
	}
	for key := range l.early {
		l.legs++
		l.example("an exchange that no client made", key.String())
	}
	clear(l.open)
	clear(l.early)
}
