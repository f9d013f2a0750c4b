package history

import (
	"cmp"
	"slices"
	"time"
)

// maxReachClients bounds the clients that [Reach] names: more than can have a noticeable
// share of a room.
const maxReachClients = 8

// Reach is how far back a [History] goes. A zero time means that nothing was evicted
// yet.
type Reach struct {
	Ordinary time.Time `json:"ordinary_since"` // every lookup is held that finished after
	Notable  time.Time `json:"notable_since"`  // likewise those that failed, were slow or have a finding
	// Clients had more than their share, and less is held of them: the 8 with the most held
	// lines. Further ones count as all others.
	Clients []ClientReach `json:"clients,omitempty"`
}

// ClientReach is how far back the lookups of one client go. A zero time means as far as
// those of all others.
type ClientReach struct {
	Client   string    `json:"client"`
	Ordinary time.Time `json:"ordinary_since,omitzero"`
	Notable  time.Time `json:"notable_since,omitzero"`
}

// Reach returns how far back the history goes now.
func (h *History) Reach() Reach {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reach Reach
	if h.stats.EvictedAge > 0 {
		reach.Ordinary, reach.Notable = h.horizon(), h.horizon()
	}
	reach.Ordinary = later(reach.Ordinary, h.rooms[ordinary].lostUntil)
	reach.Notable = later(reach.Notable, h.rooms[notable].lostUntil)
	held := map[string]int{}
	for i, r := range h.rooms {
		for _, c := range r.holders {
			at := [rooms]time.Time{reach.Ordinary, reach.Notable}[i]
			if c.lostUntil.After(at) {
				held[c.label] += c.raw
				reach.add(c.label, i, c.lostUntil)
			}
		}
	}
	slices.SortFunc(reach.Clients, func(a, b ClientReach) int {
		return cmp.Or(held[b.Client]-held[a.Client], cmp.Compare(a.Client, b.Client))
	})
	for len(reach.Clients) > maxReachClients {
		last := reach.Clients[len(reach.Clients)-1]
		reach.Clients = reach.Clients[:len(reach.Clients)-1]
		reach.Ordinary, reach.Notable = later(reach.Ordinary, last.Ordinary), later(reach.Notable, last.Notable)
	}
	reach.Clients = slices.DeleteFunc(reach.Clients, func(c ClientReach) bool {
		return !c.Ordinary.After(reach.Ordinary) && !c.Notable.After(reach.Notable)
	})
	return reach
}

// add notes how far the lookups of a client go in one room.
func (r *Reach) add(client string, room int, until time.Time) {
	i := slices.IndexFunc(r.Clients, func(c ClientReach) bool { return c.Client == client })
	if i < 0 {
		i = len(r.Clients)
		r.Clients = append(r.Clients, ClientReach{Client: client})
	}
	at := &r.Clients[i].Ordinary
	if room == notable {
		at = &r.Clients[i].Notable
	}
	*at = later(*at, until)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
