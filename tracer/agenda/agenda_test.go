package agenda

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type task struct {
	at    int64
	name  int
	index int
}

func (t *task) SetIndex(i int) { t.index = i }

func (t *task) Before(other *task) bool { return t.name < other.name }

// Whatever is added, moved and removed, items come in order of time, and those of one time
// in their own.
func TestOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var a Of[*task]
	var held []*task
	for name := range 3000 {
		x := &task{at: int64(random.IntN(100)), name: name}
		a.Add(x, x.at)
		held = append(held, x)
		if name%2 == 0 {
			x = held[random.IntN(len(held))]
			x.at = int64(random.IntN(100))
			a.Move(x.index, x.at)
		}
		if name%3 == 0 {
			i := random.IntN(len(held))
			gone := held[i]
			a.Remove(gone.index)
			held = slices.Delete(held, i, i+1)
			if gone.index != -1 {
				t.Fatalf("it was removed and is at %d", gone.index)
			}
		}
		for i := range a {
			if a[i].Item.index != i || a[i].At != a[i].Item.at {
				t.Fatalf("%+v is at %d", a[i].Item, i)
			}
		}
	}
	slices.SortFunc(held, func(x, y *task) int { return int(x.at-y.at)*10_000 + x.name - y.name })
	for _, want := range held {
		if got := a[0].Item; got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		a.Remove(0)
	}
	if len(a) != 0 {
		t.Errorf("%d are left", len(a))
	}
}
