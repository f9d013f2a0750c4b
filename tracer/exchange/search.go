package exchange

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// maxSearches bounds how often a second the whole table is searched, which is for
// packets that say too little to look their exchange up.
const maxSearches = 100

// search returns the one open exchange of a client with a DNS ID. Two cannot be
// told apart.
func (t *Table) search(p *capture.Packet, client netip.AddrPort, id uint16, protocol uint8) *open {
	if t.searches >= maxSearches {
		return nil
	}
	t.searches++
	netns := loopbackOf(client, p)
	var found *open
	for k, ex := range t.open {
		if k.client != client || k.id != id || k.protocol != protocol || netns != 0 && k.netns != netns {
			continue
		}
		if found != nil && found != ex {
			return nil
		}
		found = ex
	}
	return found
}

// bare takes a message without a question and returns its exchange: nil if it is
// no response, or the query is not known.
func (t *Table) bare(p *capture.Packet, client netip.AddrPort, body []byte, size int) *open {
	h, ok := parseBare(body)
	if !ok {
		return nil
	}
	ex := t.recent.response(p, h.id)
	if ex == nil {
		ex = t.search(p, client, h.id, p.Protocol)
	}
	if ex == nil || !ex.mayAnswer(p) {
		return nil
	}
	t.recent.note(p, ex, true)
	ex.response(h, body, size)
	return ex
}
