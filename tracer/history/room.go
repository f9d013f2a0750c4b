package history

import (
	"math"
	"slices"
	"time"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/origin"
)

// fairShare is the part of a full room that any client may have whatever the others do: a
// 32nd. More would leave a client little where several misbehave at once; less would make
// thinning expensive, since a rewritten block frees at least so much.
const fairShare = 32

// smallBlock bounds, before compression, a block that joins the rests of thinned ones: so
// much shrinks to a tenth, and rewriting it takes a third of the time of a full block.
const smallBlock = blockBytes / 4

// maxNames bounds how many clients of one place are distinguished. In a pod there are a
// few; the addresses of other nodes' clients, which can be forged, are more. Those
// beyond it are one client.
const maxNames = 256

// maxPlaces bounds in how many places a cgroup, which is a pod or a service, is distinguished:
// with user namespaces a client can make network namespaces without end, each a place.
// Beyond that the cgroup is one client wherever it is.
const maxPlaces = 16

// holderBytes is what a client costs in memory beside its names: its entries in the
// tables, and the allocations.
const holderBytes = 320

// room is a part of the memory, in which the lines of all clients are in blocks in order of
// time. When it is full it evicts the oldest block, or, if a client has much more than
// others, the oldest lines of that client alone.
type room struct {
	maxBytes int
	blocks   []*block // compressed, oldest first
	open     block    // takes what comes
	scratch  []byte
	fresh    block // room to make one anew in

	bytes, traces int
	raw           int // bytes of all lines before compression
	holders       map[origin.Client]*holder
	byNumber      map[uint32]*holder
	names         map[origin.Place]int // holders of a place
	places        map[string]int       // holders of a cgroup
	lastNumber    uint32
	lostUntil     time.Time // when the newest line finished that was evicted with those of all others
}

// holder is a client that has lines in a room.
type holder struct {
	client    origin.Client
	label     string
	number    uint32
	raw       int       // bytes of its lines before compression
	lostUntil time.Time // when the newest line finished that was evicted of this client alone
}

func (h *holder) size() int { return holderBytes + len(h.client.Name) + len(h.label) }

func newRoom(maxBytes int) *room {
	return &room{maxBytes: maxBytes, holders: map[origin.Client]*holder{}, byNumber: map[uint32]*holder{}, names: map[origin.Place]int{}, places: map[string]int{}}
}

// others names the clients of a place beyond maxNames.
const others = "others"

// holder returns the holder of a client's lines.
func (r *room) holder(c origin.Client, label string) *holder {
	if h := r.holders[c]; h != nil {
		return h
	}
	if r.places[cgroupOf(c)] >= maxPlaces {
		c.Place = origin.Place{Place: trace.Place{Node: c.Place.Node}}
		if h := r.holders[c]; h != nil {
			return h
		}
	}
	if r.names[c.Place] >= maxNames {
		c.Name, label = others, "further clients"
		if c.Place.Device != "" {
			label += " by way of " + c.Place.Device
		}
		if h := r.holders[c]; h != nil {
			return h
		}
	}
	r.lastNumber++
	h := &holder{client: c, label: label, number: r.lastNumber}
	r.holders[c], r.byNumber[h.number] = h, h
	r.names[c.Place]++
	if cgroup := cgroupOf(c); cgroup != "" {
		r.places[cgroup]++
	}
	r.bytes += h.size()
	return h
}

// count adds the bytes of a client's lines. A client without lines is forgotten; what it lost
// counts then as a loss of all.
func (r *room) count(h *holder, raw int) {
	h.raw += raw
	r.raw += raw
	if h.raw > 0 {
		return
	}
	r.lost(h.lostUntil)
	delete(r.holders, h.client)
	delete(r.byNumber, h.number)
	if r.names[h.client.Place]--; r.names[h.client.Place] == 0 {
		delete(r.names, h.client.Place)
	}
	if cgroup := cgroupOf(h.client); cgroup != "" {
		if r.places[cgroup]--; r.places[cgroup] == 0 {
			delete(r.places, cgroup)
		}
	}
	r.bytes -= h.size()
}

// cgroupOf returns the cgroup by which a client is named; the root, in which others are,
// says nothing.
func cgroupOf(c origin.Client) string {
	if len(c.Name) > 1 && c.Name[0] == '/' {
		return c.Name
	}
	return ""
}

func (r *room) lost(until time.Time) {
	if until.After(r.lostUntil) {
		r.lostUntil = until
	}
}

// add keeps a line. It evicts nothing: see fit.
func (r *room) add(e *entry, c origin.Client, label string) {
	h := r.holder(c, label)
	e.client = h.number
	before := r.open.bytes()
	r.open.add(e)
	r.bytes += r.open.bytes() - before
	r.traces++
	r.count(h, entryHead+len(e.line))
	if len(r.open.data) >= blockBytes {
		r.seal()
	}
}

// seal compresses the open block, and uses its memory for the next.
func (r *room) seal() {
	if r.open.traces == 0 {
		return
	}
	sealed := r.open.compress(&r.scratch)
	r.blocks = append(r.blocks, sealed)
	r.bytes += sealed.bytes() - r.open.bytes()
	r.open.reset()
}

// expire evicts whole blocks that finished before the horizon; too old lines in a younger
// block are skipped when it is read. It returns how many traces it evicted.
func (r *room) expire(horizon time.Time) int {
	n := 0
	for r.traces > 0 && r.oldest().last.Before(horizon) {
		n += r.dropOldest()
	}
	return n
}

// fit evicts what there is no memory for, and returns how many traces it evicted with the
// oldest blocks, and how many because their client had more than its share.
func (r *room) fit() (oldest, thinned int) {
	for r.bytes > r.maxBytes && r.traces > 0 {
		if n := r.thin(); n > 0 {
			thinned += n
			continue
		}
		r.lost(r.oldest().last)
		oldest += r.dropOldest()
	}
	return oldest, thinned
}

func (r *room) oldest() *block {
	if len(r.blocks) > 0 {
		return r.blocks[0]
	}
	return &r.open
}

// dropOldest evicts the oldest block and returns its number of traces.
func (r *room) dropOldest() int {
	oldest := r.oldest()
	n := oldest.traces
	r.bytes -= oldest.bytes()
	r.traces -= n
	for _, s := range oldest.shares {
		r.count(r.byNumber[s.client], -int(s.bytes))
	}
	if oldest == &r.open {
		r.open.reset()
	} else {
		r.blocks = slices.Delete(r.blocks, 0, 1)
	}
	return n
}

// thin evicts the oldest lines of those clients that have the most, if they have
// more than their share, and returns how many that were.
func (r *room) thin() int {
	limit := r.limit()
	if limit == 0 {
		return 0
	}
	over := func(s share) bool { return r.byNumber[s.client].raw > limit }
	at := slices.IndexFunc(r.blocks, func(b *block) bool { return slices.ContainsFunc(b.shares, over) })
	if at < 0 {
		r.seal()
		at = len(r.blocks) - 1
	}
	return r.rewrite(at, over)
}

// limit returns how many bytes, before compression, a client may have now: half of what the
// largest has, so that clients of similar size shrink together, or less where they are few
// compared with the room. It is 0 where all are of similar size.
func (r *room) limit() int {
	most := 0
	for _, h := range r.holders {
		most = max(most, h.raw)
	}
	limit := most / 2
	if fair := r.raw / fairShare; most > fair {
		limit = max(limit, fair)
	}
	for ; ; limit /= 2 {
		above, all := 0, true
		for _, h := range r.holders {
			if h.raw > limit {
				above += h.raw
			} else {
				all = false
			}
		}
		switch {
		case all:
			return 0
		case above >= r.raw/fairShare:
			return limit
		}
	}
}

// rewrite rebuilds a block without the lines of some clients, together with the block before
// it where both fit in one, and returns how many lines it dropped.
func (r *room) rewrite(at int, over func(share) bool) int {
	old := r.blocks[at]
	going := map[uint32]*holder{}
	left := old.raw
	for _, s := range old.shares {
		if over(s) {
			going[s.client] = r.byNumber[s.client]
			left -= int(s.bytes)
		}
	}
	fresh := &r.fresh
	fresh.reset()
	from := at
	if at > 0 && r.blocks[at-1].raw+left <= smallBlock {
		from--
		for _, e := range r.blocks[from].entries(math.MinInt64) {
			fresh.add(&e)
		}
	}
	for _, e := range old.entries(math.MinInt64) {
		if h := going[e.client]; h == nil {
			fresh.add(&e)
		} else if finished := time.Unix(0, e.finished); finished.After(h.lostUntil) {
			h.lostUntil = finished
		}
	}
	before := 0
	for _, b := range r.blocks[from : at+1] {
		before += b.traces
		r.bytes -= b.bytes()
	}
	var replacement []*block
	if fresh.traces > 0 {
		replacement = []*block{fresh.compress(&r.scratch)}
		r.bytes += replacement[0].bytes()
	}
	r.blocks = slices.Replace(r.blocks, from, at+1, replacement...)
	gone := before - fresh.traces
	r.traces -= gone
	for _, s := range old.shares {
		if h := going[s.client]; h != nil {
			r.count(h, -int(s.bytes))
		}
	}
	return gone
}

// since returns the blocks, oldest first, that may hold what finished at or after a
// time. They never change.
func (r *room) since(t time.Time) []*block {
	var found []*block
	for _, b := range r.blocks {
		if !b.last.Before(t) {
			found = append(found, b)
		}
	}
	if r.open.traces > 0 && !r.open.last.Before(t) {
		frozen := r.open
		frozen.data = slices.Clone(frozen.data)
		frozen.shares = nil
		found = append(found, &frozen)
	}
	return found
}
