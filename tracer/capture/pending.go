package capture

import "slices"

// pending are events that were read and may be preceded by others, one behind the
// other in memory that is reused.
type pending struct {
	events []event
	merged []event // memory of sort
	data   []byte
	left   []byte // those that stay, on their way to the front
	most   int    // bytes of a round, since trim
	rounds int    // since then
}

// event is where an event is in the data, and when it was.
type event struct {
	time     int64
	from, to int
}

// Bounds of the memory.
const (
	// Room for almost every event: 2 KiB of payload, and all parts.
	eventRoom = 4 << 10
	// What is kept in any case: 20 ms of 15,000 packets a second.
	smallRound = 128 << 10
	// What is never kept: 20 ms of half a million packets a second.
	maxKept = 4 << 20
	// How long what a burst needed is kept: half a minute.
	trimRounds = 1500
)

// room returns memory for the next event, empty.
func (p *pending) room() []byte {
	p.data = slices.Grow(p.data, eventRoom)
	return p.data[len(p.data):]
}

// add notes an event, read into room or not.
func (p *pending) add(raw []byte) {
	from := len(p.data)
	// A copy onto itself where it is in room.
	p.data = append(p.data, raw...)
	p.events = append(p.events, event{time: eventTime(raw), from: from, to: len(p.data)})
}

// newest returns the time of the event that was added last; there is one.
func (p *pending) newest() int64 { return p.events[len(p.events)-1].time }

// take passes on the events up to a time, in order of time. They are valid until deliver
// returns.
func (p *pending) take(upTo int64, deliver func(raw []byte) error) error {
	p.sort()
	n := 0
	for n < len(p.events) && p.events[n].time <= upTo {
		e := p.events[n]
		n++
		if err := deliver(p.data[e.from:e.to]); err != nil {
			return err
		}
	}
	p.keep(p.events[n:])
	return nil
}

// sort orders the events by time, those of one time as they came. Those of each CPU come
// almost in order: such runs are merged, two by two, until there is one.
func (p *pending) sort() {
	for run(p.events) < len(p.events) {
		merged := p.merged[:0]
		for left := p.events; len(left) > 0; {
			n := run(left)
			m := n + run(left[n:])
			merged = merge(merged, left[:n], left[n:m])
			left = left[m:]
		}
		p.events, p.merged = merged, p.events
	}
}

// run returns how many of the first events are in order.
func run(events []event) int {
	for i := 1; i < len(events); i++ {
		if events[i].time < events[i-1].time {
			return i
		}
	}
	return len(events)
}

// merge appends two runs as one.
func merge(to, a, b []event) []event {
	for len(a) > 0 && len(b) > 0 {
		if b[0].time < a[0].time {
			to, b = append(to, b[0]), b[1:]
		} else {
			to, a = append(to, a[0]), a[1:]
		}
	}
	return append(append(to, a...), b...)
}

// keep drops all but the events that are left: the few of the last moment.
func (p *pending) keep(left []event) {
	p.most = max(p.most, len(p.data))
	kept := p.left[:0]
	for i := range left {
		from := len(kept)
		kept = append(kept, p.data[left[i].from:left[i].to]...)
		left[i].from, left[i].to = from, len(kept)
	}
	p.left = kept
	p.events = append(p.events[:0], left...)
	p.data = append(p.data[:0], kept...)
	p.trim()
}

// trim releases the memory that only a burst needed.
func (p *pending) trim() {
	p.rounds++
	due := p.rounds >= trimRounds
	if cap(p.data) > maxKept || due && cap(p.data) > 4*max(p.most, smallRound) {
		p.events, p.merged, p.data, p.left = slices.Clone(p.events), nil, slices.Clone(p.data), nil
	}
	if due {
		p.rounds, p.most = 0, 0
	}
}
