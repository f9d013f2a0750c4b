package exchange

import "iter"

// What exchanges are chained by.
const (
	chainSocket   = iota // those over UDP
	chainQuestion        // all that ask one
	chainKin             // all
	chainings
)

// links join an exchange to its neighbours in a chain.
type links struct{ newer, older *open }

// chains are lists of open exchanges that have something in common, the newest first: each
// is joined and left in constant time.
type chains[K comparable] struct {
	newest map[K]*open
	by     int // which links of an exchange are this chain's
}

func newChains[K comparable](by int) chains[K] { return chains[K]{map[K]*open{}, by} }

func (c *chains[K]) join(k K, ex *open) {
	l := &ex.links[c.by]
	if l.older = c.newest[k]; l.older != nil {
		l.older.links[c.by].newer = ex
	}
	c.newest[k] = ex
}

// leave undoes join, if there was one.
func (c *chains[K]) leave(k K, ex *open) {
	l := &ex.links[c.by]
	switch {
	case l.newer != nil:
		l.newer.links[c.by].older = l.older
	case c.newest[k] != ex: // it never joined
	case l.older == nil:
		delete(c.newest, k)
	default:
		c.newest[k] = l.older
	}
	if l.older != nil {
		l.older.links[c.by].newer = l.newer
	}
	*l = links{}
}

// of yields the exchanges of a chain, at most so many.
func (c *chains[K]) of(k K, most int) iter.Seq[*open] {
	return func(yield func(*open) bool) {
		for ex := c.newest[k]; ex != nil && most > 0; ex = ex.links[c.by].older {
			if most--; !yield(ex) {
				return
			}
		}
	}
}
