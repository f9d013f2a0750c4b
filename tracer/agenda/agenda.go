// Package agenda is a priority queue of items by the time at which they are due: a heap as
// of package container/heap, with the times in one slice, so that comparisons do not touch
// the items, which are elsewhere in memory. With four children each it is half as deep as
// with two, and half as many items need a new index.
package agenda

// Item is what an agenda holds.
type Item[T any] interface {
	// SetIndex tells an item where it stands; -1: it is taken out.
	SetIndex(i int)
	// Before orders those of one time.
	Before(other T) bool
}

// Of holds items. The first is the one with the least time.
type Of[T Item[T]] []Entry[T]

// Entry is an item and when to look at it.
type Entry[T any] struct {
	At   int64
	Item T
}

// Add takes in an item.
func (a *Of[T]) Add(item T, at int64) {
	*a = append(*a, Entry[T]{at, item})
	a.up(len(*a) - 1)
}

// Move gives the item at an index another time.
func (a Of[T]) Move(i int, at int64) {
	a[i].At = at
	if !a.down(i) {
		a.up(i)
	}
}

// Remove takes out the item at an index.
func (a *Of[T]) Remove(i int) {
	list := *a
	last := len(list) - 1
	gone, moved := list[i].Item, list[last]
	list[last] = Entry[T]{}
	*a = list[:last]
	if i < last {
		list[i] = moved
		if !a.down(i) {
			a.up(i)
		}
	}
	gone.SetIndex(-1)
}

func (a Of[T]) less(x, y *Entry[T]) bool {
	if x.At != y.At {
		return x.At < y.At
	}
	return x.Item.Before(y.Item)
}

func (a Of[T]) put(i int, e Entry[T]) {
	a[i] = e
	e.Item.SetIndex(i)
}

// children is how many entries are directly behind each.
const children = 4

// up moves an entry to the front as far as it belongs.
func (a Of[T]) up(i int) {
	e := a[i]
	for i > 0 {
		parent := (i - 1) / children
		if !a.less(&e, &a[parent]) {
			break
		}
		a.put(i, a[parent])
		i = parent
	}
	a.put(i, e)
}

// down moves an entry to the back as far as it belongs; false: it is there.
func (a Of[T]) down(i int) bool {
	e, from := a[i], i
	for {
		first := children*i + 1
		if first >= len(a) {
			break
		}
		least := first
		for child := first + 1; child < min(first+children, len(a)); child++ {
			if a.less(&a[child], &a[least]) {
				least = child
			}
		}
		if !a.less(&a[least], &e) {
			break
		}
		a.put(i, a[least])
		i = least
	}
	a.put(i, e)
	return i > from
}
