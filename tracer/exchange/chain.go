package exchange

import "github.com/dnstrace/dnstrace/tracer/chain"

// What exchanges are chained by.
const (
	chainKey      = iota // all: by their key
	chainSocket          // those over UDP: by their client's socket
	chainQuestion        // all that ask one: by it
	chainKin             // all: by what the lookups of one call have in common
	chainings
)

type chains = chain.Table[open]

func newChains(by int) chains {
	return chain.New(func(ex *open) *chain.Links[open] { return &ex.links[by] })
}
