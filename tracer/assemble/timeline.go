package assemble

import (
	"cmp"
	"slices"
)

// timeline holds items in order of a time (ns since 1970) that each has while it is in
// it. A search takes O(log n). Most items come almost in order, and leave almost in
// order: both are cheap.
type timeline[T comparable] []entry[T]

type entry[T comparable] struct {
	at   int64
	item T
}

// insert adds an item.
func (t *timeline[T]) insert(at int64, item T) {
	i := len(*t)
	for i > 0 && (*t)[i-1].at > at {
		i--
	}
	*t = slices.Insert(*t, i, entry[T]{at, item})
}

// remove takes out an item that was inserted with that time. It moves those on the
// shorter side.
func (t *timeline[T]) remove(at int64, item T) {
	list := *t
	for i := t.from(at); i < len(list) && list[i].at == at; i++ {
		if list[i].item != item {
			continue
		}
		if i < len(list)/2 {
			copy(list[1:i+1], list[:i])
			list[0] = entry[T]{}
			*t = list[1:]
		} else {
			*t = slices.Delete(list, i, i+1)
		}
		return
	}
}

// from returns the index of the first item at or after a time.
func (t timeline[T]) from(at int64) int {
	i, _ := slices.BinarySearchFunc(t, at, func(e entry[T], at int64) int { return cmp.Compare(e.at, at) })
	return i
}
