package exchange

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// places is what was learned of network namespaces: which of their packets are seen.
type places struct {
	netns  map[uint32]passes
	serves map[serving]struct{}
}

// passes says how packets pass a namespace.
type passes uint8

const (
	receives  passes = 1 << iota // some were seen to come in by a device
	transmits                    // some were seen to go out by one
	redirects                    // some went on from it by a way that is not seen (bpf_redirect_peer)
	forwards                     // some came in and went out
	asks                         // queries left it that did not come in before
)

// serving is an address at which somebody in a namespace answers.
type serving struct {
	netns uint32
	addr  netip.AddrPort
}

// maxPlaces bounds what is learned: a node has at most so many namespaces, and what is
// dropped is learned again.
const maxPlaces = 8192

func newPlaces() places { return places{map[uint32]passes{}, map[serving]struct{}{}} }

func (p *places) learn(netns uint32, how passes) {
	if p.netns[netns]&how == how {
		return
	}
	if len(p.netns) >= maxPlaces {
		clear(p.netns)
	}
	p.netns[netns] |= how
}

func (p *places) learnServer(netns uint32, addr netip.AddrPort) {
	s := serving{netns, addr}
	if _, known := p.serves[s]; known {
		return
	}
	if len(p.serves) >= maxPlaces {
		clear(p.serves)
	}
	p.serves[s] = struct{}{}
}

func (p *places) answersAt(netns uint32, addr netip.AddrPort) bool {
	_, ok := p.serves[serving{netns, addr}]
	return ok
}

func (p *places) does(netns uint32, how passes) bool { return p.netns[netns]&how != 0 }

// study learns from an exchange that is passed on.
func (t *Table) study(ex *open) {
	var netns uint32
	var seen passes
	for i := range ex.marks {
		m := &ex.marks[i]
		how := receives
		switch m.kind {
		case capture.TX:
			how = transmits
		case capture.RX:
		default:
			continue
		}
		if i > 0 && m.netns == netns && seen&how != 0 {
			continue
		}
		if m.netns != netns {
			seen = 0
		}
		netns, seen = m.netns, seen|how
		t.places.learn(netns, how)
	}
	for i := range ex.marks {
		if m := &ex.marks[i]; m.kind == capture.RX && !m.is(inResponse) && !t.places.does(m.netns, forwards) && ex.goesOn(i) {
			t.places.learn(m.netns, forwards)
		}
	}
	t.studyServer(ex)
}

// studyServer learns where the server answers, and where queries go on unseen.
func (t *Table) studyServer(ex *open) {
	response := ex.responseLeft().Index()
	if response < 0 {
		return
	}
	server := ex.marks[response].netns
	src, _ := ex.path.Addresses(response)
	t.places.learnServer(server, src)
	last := -1
	for i := range response {
		m := &ex.marks[i]
		if m.is(inResponse|notForIt) || m.kind == capture.Read {
			continue
		}
		if m.netns == server {
			return
		}
		last = i
	}
	if last < 0 {
		return
	}
	// The query came to the server from there without being seen to leave.
	if m := &ex.marks[last]; m.kind == capture.RX {
		t.places.learn(m.netns, redirects)
	}
}

// firstOf returns the index of the first sighting of a message that is not rejected;
// -1 if there is none.
func (ex *open) firstOf(message uint8) int {
	for i := range ex.marks {
		if m := &ex.marks[i]; m.bits&inResponse == message && ex.journeys[m.journey].why <= stray {
			return i
		}
	}
	return -1
}
