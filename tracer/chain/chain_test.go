package chain

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

type item struct {
	hash  uint64
	links Links[item]
}

func newTable() Table[item] {
	return New(func(i *item) *Links[item] { return &i.links })
}

// What joins and leaves in any order is found as in a list, the newest first, whatever the size
// of the table.
func TestTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	table := newTable()
	var all []*item // the oldest first
	for n := range 20_000 {
		if len(all) > 0 && rng.IntN(3) == 0 {
			i := rng.IntN(len(all))
			table.Leave(all[i])
			table.Leave(all[i]) // nothing any more
			all = slices.Delete(all, i, i+1)
		} else {
			it := &item{hash: uint64(rng.IntN(500))}
			table.Join(it.hash, it)
			all = append(all, it)
		}
		if n%1000 == 0 {
			table.Resize()
		}
		if n%100 != 0 {
			continue
		}
		hash, want := uint64(rng.IntN(500)), []*item(nil)
		for _, it := range slices.Backward(all) {
			if it.hash == hash {
				want = append(want, it)
			}
		}
		if got := slices.Collect(table.Of(hash, math.MaxInt)); !slices.Equal(got, want) || table.Len() != len(all) {
			t.Fatalf("%d of a hash, want %d; %d in all, want %d", len(got), len(want), table.Len(), len(all))
		}
		if got := slices.Collect(table.Of(hash, 3)); !slices.Equal(got, want[:min(3, len(want))]) {
			t.Fatalf("%d of at most 3", len(got))
		}
	}
	for _, it := range all {
		table.Leave(it)
	}
	if table.Resize(); table.Len() != 0 || len(table.heads) != 1<<leastBuckets {
		t.Errorf("%d are left, with %d buckets", table.Len(), len(table.heads))
	}
}
