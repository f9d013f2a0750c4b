package top

import "time"

// lateness is how many seconds late a lookup may be reported and still be counted in its
// second: longer than the records of several nodes wait for each other.
const lateness = 32

// peak finds the second with the most lookups. Those that come later than
// lateness after the newest second of a row are not in it.
type peak struct {
	seconds [lateness]second // by Unix time
	most    uint64
}

type second struct {
	unix  int64
	count uint64
}

func (p *peak) add(at time.Time) { p.put(second{unix: at.Unix(), count: 1}) }

func (p *peak) put(s second) {
	if s.count == 0 {
		return
	}
	have := &p.seconds[uint64(s.unix)%lateness]
	switch {
	case have.count == 0 || have.unix < s.unix:
		*have = s
	case have.unix == s.unix:
		have.count += s.count
	default:
		return
	}
	p.most = max(p.most, have.count)
}

func (p *peak) merge(o *peak) {
	for _, s := range o.seconds {
		p.put(s)
	}
	p.most = max(p.most, o.most)
}
